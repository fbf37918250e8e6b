"""Classes without members, which Scipion's own classification leaves out."""


def add_empty_classes(classes, class_ids, describe):
    """Add those classes that no particle chose.

    Parameters
    ----------
    classes : SetOfClasses3D
        With its images set; classes that are in it stay as they are.
    class_ids : iterable of int
        Every class that should be there.
    describe : callable
        Gets each new class before it is added, to set its representative and label.
    """
    images = classes.getImages()
    for class_id in sorted(set(class_ids) - classes.getIdSet()):
        item = classes.ITEM_TYPE(objId=class_id)
        item.setRepresentative(classes.REP_TYPE())
        item.copyInfo(images)
        item.setAcquisition(images.getAcquisition())
        describe(item)
        classes.append(item)
        # A class has its table from its first member on, and reading a class without a table fails.
        member = images.getFirstItem().clone()
        item.append(member)
        item._getMapper().delete(member)
        item._size.set(0)
        classes.update(item)

"""Scipion objects of this plugin: templates, and the names of the attributes that particles get."""

from pwem.objects import EMObject, EMSet
from pyworkflow.object import Float, Integer, String

ATTRIBUTE_PREFIX = "_cryolike_"
COEFFICIENTS_ATTRIBUTE = ATTRIBUTE_PREFIX + "coefficients"
IMAGE_SIGN_ATTRIBUTE = ATTRIBUTE_PREFIX + "imageSign"  # -1 where protein is dark, as cryoSPARC's files say it
COEFFICIENTS_HASH_ATTRIBUTE = ATTRIBUTE_PREFIX + "coefficientsHash"

# STAR column of the engine to (attribute of a particle, its type).
SCORE_ATTRIBUTES = {
    "cryolikeCrossCorrelation": ("_cryolike_crossCorrelation", Float),
    "cryolikeLogLikelihood": ("_cryolike_logLikelihood", Float),
    "cryolikeLogLikelihoodMax": ("_cryolike_logLikelihoodMax", Float),
    "cryolikeLogLikelihoodNull": ("_cryolike_logLikelihoodNull", Float),
    "cryolikeBestStructure": ("_cryolike_bestStructure", Integer),
    "cryolikeBestTemplate": ("_cryolike_bestTemplate", Integer),
    "cryolikeStatus": ("_cryolike_status", String),
    "cryolikeStructurePosterior": ("_cryolike_structurePosterior", Float),
    "cryolikePosePosterior": ("_cryolike_posePosterior", Float),
    "cryolikePoseEntropy": ("_cryolike_poseEntropy", Float),
    "cryolikePoseEffective": ("_cryolike_poseEffective", Float),
    "cryolikePoseGap": ("_cryolike_poseGap", Float),
    "cryolikePoseSpread": ("_cryolike_poseSpread", Float),
    "cryolikeLogRatioZ": ("_cryolike_logRatioZ", Float),
    "cryolikeScale": ("_cryolike_scale", Float),
    "rlnLogLikeliContribution": ("_rlnLogLikeliContribution", Float),
    "rlnMaxValueProbDistribution": ("_rlnMaxValueProbDistribution", Float),
    "rlnClassNumber": ("_rlnClassNumber", Integer),
}


class CryolikeTemplates(EMObject):
    """One structure, prepared for comparison: its band-limited density, its views, and a stack to look at."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._filename = String()
        self._structure = String()
        self._label = String()
        self._symmetry = String()
        self._preview = String()
        self._views = Integer()

    def getFileName(self):
        """Return the HDF5 file with the band-limited structure and the table of views."""
        return self._filename.get()

    def setFileName(self, name):
        """Set the HDF5 file."""
        self._filename.set(name)

    def getStructure(self):
        """Return the file of the map or atomic structure that this was made from."""
        return self._structure.get()

    def setStructure(self, name):
        """Set the file of the structure."""
        self._structure.set(name)

    def getLabel(self):
        """Return the name of the structure in tables and plots."""
        return self._label.get()

    def setLabel(self, text):
        """Set the name of the structure."""
        self._label.set(text)

    def getSymmetry(self):
        """Return the point group, in RELION's names."""
        return self._symmetry.get()

    def setSymmetry(self, name):
        """Set the point group."""
        self._symmetry.set(name)

    def getPreview(self):
        """Return the MRC stack of some projections, None if there is none."""
        return self._preview.get()

    def setPreview(self, name):
        """Set the stack of projections."""
        self._preview.set(name)

    def getViews(self):
        """Return the number of views."""
        return self._views.get()

    def setViews(self, count):
        """Set the number of views."""
        self._views.set(count)

    def getFiles(self):
        """Return the files that belong to this item."""
        return {name for name in (self.getFileName(), self.getPreview()) if name}

    def __str__(self):
        return f"{self.getLabel()} ({self.getSymmetry()}, {self.getViews()} views)"


class SetOfCryolikeTemplates(EMSet):
    """Structures prepared for comparison with particles of one box and pixel size.

    Not a set of images, so that no parameter for particles or volumes takes it.
    """

    ITEM_TYPE = CryolikeTemplates

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._box = Integer()
        self._samplingRate = Float()

    def getBox(self):
        """Return the box of the templates in pixels."""
        return self._box.get()

    def setBox(self, box):
        """Set the box in pixels."""
        self._box.set(box)

    def getSamplingRate(self):
        """Return the pixel size of the templates in Å."""
        return self._samplingRate.get()

    def setSamplingRate(self, pixel):
        """Set the pixel size in Å."""
        self._samplingRate.set(pixel)

    def copyInfo(self, other):
        """Copy box and pixel size."""
        self.copyAttributes(other, "_box", "_samplingRate")

    def getFiles(self):
        """Return the files of all items."""
        return set().union(*(item.getFiles() for item in self.iterItems()))

    def __str__(self):
        box, pixel = self.getBox(), self.getSamplingRate()
        size = "" if box is None or pixel is None else f", {box} px, {pixel:.2f} Å/px"
        return f"{self.getClassName()} ({self.getSize()} structures{size})"

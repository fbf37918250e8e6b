"""Every wizard, and that the form takes what it gives."""

from cryolike_scipion import wizards


def use(driver, form, wizard, name, values, picture):
    """Open a wizard with a slider, choose some values one after the other, and take the last."""
    wizard.show(form)
    driver.pump(0.4)
    for value in values:
        wizard.window.set(value)
    driver.picture(picture, wizard.window.window)
    wizard.window.ok.invoke()
    expect(form, name, values[-1])


def mask(driver):
    """The mask's diameter on a particle and a projection: what is suggested holds the structure, and any other is taken."""
    form = driver.form(driver.runs["ProtCryolikeLikelihood"])
    wizard = wizards.CryolikeMaskWizard()
    wizard.show(form)
    driver.pump(0.4)
    axes = wizard.window.canvas.figure.axes
    if len(axes) != 2 or not 115 < wizard.window.value <= 192:
        raise AssertionError(f"{len(axes)} pictures, and a mask of {wizard.window.value} Å is suggested")
    wizard.window.window.destroy()
    use(driver, form, wizard, "maskDiameter", (140.0, 120.4), "wizard-mask")
    form.root.destroy()


def resolution(driver):
    """The limit on the power spectra."""
    form = driver.form(driver.runs["ProtCryolikeLikelihood"])
    use(driver, form, wizards.CryolikeResolutionWizard(), "resolution", (14.0,), "wizard-resolution")
    form.root.destroy()


def shift(driver):
    """The largest shift, from box and structure."""
    form = driver.form(driver.runs["ProtCryolikeLikelihood"])
    wizards.CryolikeShiftWizard().show(form)
    found = float(form.widgetDict["maxShift"].get())
    if not 4 <= found <= 19.2:
        raise AssertionError(f"the shift wizard gave {found}")
    form.root.destroy()


def symmetry(driver):
    """The fourth point group of the list."""
    form = driver.form(driver.runs["ProtCryolikeGenerateTemplates"])

    def choose():
        dialog = driver.dialog(form)
        dialog.tree.selection_set(dialog.tree.get_children()[3])
        driver.picture("wizard-symmetry", dialog)
        dialog._handleResult(0)

    driver.root.after(2500, choose)
    wizards.CryolikeSymmetryWizard().show(form)
    expect(form, "symmetry", "C4")
    form.root.destroy()


def threshold(driver):
    """The threshold of a selection on the distribution of the score."""
    form = driver.form(driver.new("ProtCryolikeSelect"))
    wizard = wizards.CryolikeThresholdWizard()
    wizard.show(form)
    driver.pump(0.4)
    wizard.window.setThreshold(25)
    driver.picture("wizard-threshold", wizard.window.window)
    wizard.window.button.invoke()
    expect(form, "threshold", 25.0)
    form.root.destroy()


def expect(form, name, value):
    """Insist that a form's widget has a value."""
    found = form.widgetDict[name].get()
    if (float(found) if isinstance(value, float) else found) != value:
        raise AssertionError(f"the form has {found!r} for {name}, not {value!r}")


WIZARDS = (mask, resolution, shift, symmetry, threshold)

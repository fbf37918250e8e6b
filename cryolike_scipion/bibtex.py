"""
@article{CryoLike2025,
title = {{CryoLike}: a python package for cryo-electron microscopy image-to-structure likelihood calculations},
journal = {Acta Crystallographica Section D},
year = {2025},
url = {https://www.biorxiv.org/content/10.1101/2024.10.18.619077},
author = {Tang, Wai Shing and Soules, Jeff and Rangan, Aaditya and Cossio, Pilar}
}

@article{Rangan2020,
title = {Factorization of the translation kernel for fast rigid image alignment},
journal = {Inverse Problems},
volume = {36},
number = {2},
pages = {024001},
year = {2020},
doi = {https://doi.org/10.1088/1361-6420/ab2aec},
author = {Rangan, Aaditya and Spivak, Marina and And{\\'e}n, Joakim and Barnett, Alex}
}

@article{Cossio2013,
title = {Bayesian analysis of individual electron microscopy images: Towards structures of dynamic and heterogeneous biomolecular assemblies},
journal = {Journal of Structural Biology},
volume = {184},
number = {3},
pages = {427--437},
year = {2013},
doi = {https://doi.org/10.1016/j.jsb.2013.10.006},
author = {Cossio, Pilar and Hummer, Gerhard}
}

@article{Cossio2017,
title = {{BioEM}: {GPU}-accelerated computing of {Bayesian} inference of electron microscopy images},
journal = {Computer Physics Communications},
volume = {210},
pages = {163--171},
year = {2017},
doi = {https://doi.org/10.1016/j.cpc.2016.09.014},
author = {Cossio, Pilar and Rohr, David and Baruffa, Fabio and Rampp, Markus and Lindenstruth, Volker and Hummer, Gerhard}
}

@article{Barnett2019,
title = {A Parallel Nonuniform Fast {Fourier} Transform Library Based on an ``Exponential of Semicircle'' Kernel},
journal = {SIAM Journal on Scientific Computing},
volume = {41},
number = {5},
pages = {C479--C504},
year = {2019},
doi = {https://doi.org/10.1137/18M120885X},
author = {Barnett, Alex H. and Magland, Jeremy and af Klinteberg, Ludvig}
}

@article{Scheres2012,
title = {{RELION}: Implementation of a {Bayesian} approach to cryo-{EM} structure determination},
journal = {Journal of Structural Biology},
volume = {180},
number = {3},
pages = {519--530},
year = {2012},
doi = {https://doi.org/10.1016/j.jsb.2012.09.006},
author = {Scheres, Sjors H. W.}
}

@article{Punjani2017,
title = {{cryoSPARC}: algorithms for rapid unsupervised cryo-{EM} structure determination},
journal = {Nature Methods},
volume = {14},
number = {3},
pages = {290--296},
year = {2017},
doi = {https://doi.org/10.1038/nmeth.4169},
author = {Punjani, Ali and Rubinstein, John L. and Fleet, David J. and Brubaker, Marcus A.}
}
"""  # noqa: E501

"""Libraries that are installed on a cluster before a task runs."""

from airflow_dbjobs.payloads.kinds import One, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, seed


class PythonPyPiLibrary(Structure):
    """A package of PyPI."""

    package: Text = seed("The package, with a version where wanted, as in simplejson==3.8.0. Required.")
    repo: Text = seed("Index to take it from.", default="the cluster's pip index", secret=True)


class MavenLibrary(Structure):
    """A package of a Maven repository."""

    coordinates: Text = seed("group:artifact:version, as in org.jsoup:jsoup:1.7.2. Required.")
    repo: Text = seed("Repository to take it from.", default="Maven Central and Spark Packages", secret=True)
    exclusions: Texts = seed('Dependencies that are left out, as in "*:hadoop-client".')


class RCranLibrary(Structure):
    """A package of CRAN."""

    package: Text = seed("The package. Required.")
    repo: Text = seed("Repository to take it from.", default="CRAN", secret=True)


class Library(Structure):
    """One library; exactly one of its fields is set."""

    jar: Text = seed("Address of a JAR, as in dbfs:/mnt/library.jar.", secret=True)
    egg: Text = seed("Address of a Python egg.", secret=True)
    whl: Text = seed("Address of a wheel; a zip of wheels ends in .wheelhouse.zip.", secret=True)
    pypi: One["PythonPyPiLibrary"] = seed("A package of PyPI.")
    maven: One["MavenLibrary"] = seed("A package of a Maven repository.")
    cran: One["RCranLibrary"] = seed("A package of CRAN.")
    requirements: Text = sdk("Address of a requirements.txt.", secret=True)

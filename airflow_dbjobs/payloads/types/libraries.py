"""Libraries that are installed on a cluster before a task runs."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import One, Text, Texts, sdk, v20


class PythonPyPiLibrary(TypedDict, total=False):
    """A package of PyPI."""

    package: Annotated[Text, v20("The package, with a version where wanted, as in simplejson==3.8.0. Required.")]
    repo: Annotated[Text, v20("Index to take it from. Default: the cluster's pip index.")]


class MavenLibrary(TypedDict, total=False):
    """A package of a Maven repository."""

    coordinates: Annotated[Text, v20("group:artifact:version, as in org.jsoup:jsoup:1.7.2. Required.")]
    repo: Annotated[Text, v20("Repository to take it from. Default: Maven Central and Spark Packages.")]
    exclusions: Annotated[Texts, v20('Dependencies that are left out, as in "*:hadoop-client".')]


class RCranLibrary(TypedDict, total=False):
    """A package of CRAN."""

    package: Annotated[Text, v20("The package. Required.")]
    repo: Annotated[Text, v20("Repository to take it from. Default: CRAN.")]


class Library(TypedDict, total=False):
    """One library; exactly one of its fields is set."""

    jar: Annotated[Text, v20("Address of a JAR, as in dbfs:/mnt/library.jar.")]
    egg: Annotated[Text, v20("Address of a Python egg.")]
    whl: Annotated[Text, v20("Address of a wheel; a zip of wheels ends in .wheelhouse.zip.")]
    pypi: Annotated[One["PythonPyPiLibrary"], v20("A package of PyPI.")]
    maven: Annotated[One["MavenLibrary"], v20("A package of a Maven repository.")]
    cran: Annotated[One["RCranLibrary"], v20("A package of CRAN.")]
    requirements: Annotated[Text, sdk("Address of a requirements.txt.")]

"""Libraries that are installed on a cluster before a task runs."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import One, Text, Texts, sdk, v20


class PythonPyPiLibrary(TypedDict, total=False):
    """A package of PyPI."""

    package: Annotated[Text, v20("The package, optionally with a version, such as simplejson==3.8.0. Required.")]
    repo: Annotated[Text, v20("Package index to use. Default: the cluster's pip index.")]


class MavenLibrary(TypedDict, total=False):
    """A package of a Maven repository."""

    coordinates: Annotated[Text, v20("group:artifact:version, such as org.jsoup:jsoup:1.7.2. Required.")]
    repo: Annotated[Text, v20("Repository to use. Default: Maven Central and Spark Packages.")]
    exclusions: Annotated[Texts, v20('Dependencies to exclude, such as "*:hadoop-client".')]


class RCranLibrary(TypedDict, total=False):
    """A package of CRAN."""

    package: Annotated[Text, v20("The package. Required.")]
    repo: Annotated[Text, v20("Repository to use. Default: CRAN.")]


class Library(TypedDict, total=False):
    """One library; exactly one of its fields is set."""

    jar: Annotated[Text, v20("Path or URL of a JAR, such as dbfs:/mnt/library.jar.")]
    egg: Annotated[Text, v20("Path or URL of a Python egg.")]
    whl: Annotated[Text, v20("Path or URL of a wheel, or of a ZIP file of wheels that ends in .wheelhouse.zip.")]
    pypi: Annotated[One["PythonPyPiLibrary"], v20("A package of PyPI.")]
    maven: Annotated[One["MavenLibrary"], v20("A package of a Maven repository.")]
    cran: Annotated[One["RCranLibrary"], v20("A package of CRAN.")]
    requirements: Annotated[Text, sdk("Path or URL of a requirements.txt.")]

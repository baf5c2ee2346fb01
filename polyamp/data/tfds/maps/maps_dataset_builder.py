"""MAPS: recordings of pianos with their notes. Emiya, Badeau and David 2010."""

from polyamp.data import tfds_builder


class Builder(tfds_builder.RecordingsBuilder):
    """The pieces (MUS) of MAPS, split as `polyamp.data.sources` says."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    MAPS is given out on request: see https://adasp.telecom-paris.fr/resources/2010-07-08-maps-database/. Unpack its zip files
    into <manual_dir>/MAPS.
    """

    DATASET = "maps"
    FOLDERS = ("MAPS*", "maps*")
    MARKERS = ("**/MAPS_MUS-*",)
    HOMEPAGE = "https://adasp.telecom-paris.fr/resources/2010-07-08-maps-database/"
    LICENSE = "CC BY-NC-SA 2.0"

"""A library of the distribution as a Bazel target."""

def system_library(name, libs = [], deps = [], whole = []):
    """Declares link flags under a name; headers are on the default path.

    Args:
      name: the target.
      libs: names as the linker's -l takes them, users before used.
      deps: other targets of this file.
      whole: libraries that are kept although no symbol of theirs is used.
    """
    kept = ["-Wl,--no-as-needed"] + ["-l" + lib for lib in whole] + ["-Wl,--as-needed"] if whole else []
    native.cc_library(
        name = name,
        linkopts = kept + ["-l" + lib for lib in libs],
        deps = deps,
    )

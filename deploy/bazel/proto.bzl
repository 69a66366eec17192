"""C++ code from .proto files, with the distribution's protoc."""

def cc_proto(name, protos, deps = [], grpc = False, visibility = None):
    """Generates and compiles the C++ of some protos.

    Args:
      name: the cc_library that holds the code.
      protos: .proto files of this package, imported by their path from //proto.
      deps: other cc_proto targets that the protos import.
      grpc: whether the protos define services.
      visibility: of the cc_library.
    """
    stems = [p[:-len(".proto")] for p in protos]
    kinds = [".pb"] + ([".grpc.pb"] if grpc else [])
    headers = [s + k + ".h" for s in stems for k in kinds]
    sources = [s + k + ".cc" for s in stems for k in kinds]
    flags = "--cpp_out=$(RULEDIR)/%s" % _up()
    if grpc:
        flags += " --grpc_out=$(RULEDIR)/%s --plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin" % _up()
    native.genrule(
        name = name + "_code",
        srcs = protos + [d + "_protos" for d in deps],
        outs = headers + sources,
        cmd = "/usr/bin/protoc -Iproto -I/usr/include %s %s" %
              (flags, " ".join(["$(location %s)" % p for p in protos])),
    )
    native.filegroup(
        name = name + "_protos",
        srcs = protos + [d + "_protos" for d in deps],
        visibility = visibility,
    )
    native.cc_library(
        name = name,
        srcs = sources,
        hdrs = headers,
        # Generated code: its warnings are not ours to mend.
        copts = ["-w"],
        strip_include_prefix = "/proto",
        visibility = visibility,
        deps = deps + (["@system//:grpc"] if grpc else ["@system//:protobuf"]),
    )

def _up():
    """The way from this package's output folder to that of //proto."""
    depth = len(native.package_name().split("/")) - 1
    return "/".join([".."] * depth)

"""CUDA where nvcc is installed, and nothing where it is not.

`cuda_repository` looks for the toolkit: the folder that MILLRACE_CUDA names,
else that of an nvcc on PATH, else /usr/local/cuda. MILLRACE_CUDA=none hides it.
`cuda_library` compiles kernels with what was found; HAS_CUDA of
@cuda//:cuda.bzl says whether there is anything.
"""

def _toolkit(ctx):
    """The toolkit's folder, or None."""
    named = ctx.os.environ.get("MILLRACE_CUDA", "")
    if named == "none":
        return None
    folders = [ctx.path(named)] if named else []
    nvcc = ctx.which("nvcc")
    if not named and nvcc != None:
        folders.append(nvcc.realpath.dirname.dirname)
    if not named:
        folders.append(ctx.path("/usr/local/cuda"))
    for folder in folders:
        if folder.get_child("bin").get_child("nvcc").exists:
            return folder
    if named:
        fail("MILLRACE_CUDA=%s: there is no bin/nvcc in it; name a CUDA toolkit, or 'none' to build without CUDA" % named)
    return None

def _cuda_repository_impl(ctx):
    toolkit = _toolkit(ctx)
    ctx.file("cuda.bzl", "HAS_CUDA = %s\nTOOLKIT = \"%s\"\n" % (toolkit != None, toolkit or ""))
    ctx.file("BUILD.bazel", """
cc_library(
    name = "cudart",
    linkopts = %s,
    visibility = ["//visibility:public"],
)
""" % repr(["-L%s/lib64" % toolkit, "-lcudart_static", "-ldl", "-lrt", "-lpthread"] if toolkit else []))

cuda_repository = repository_rule(
    implementation = _cuda_repository_impl,
    environ = ["MILLRACE_CUDA", "PATH"],
    local = True,
)

# Code for the A100 and its like, for the H100 and its like, and PTX, from which
# the driver makes code for whatever comes later.
_CODE = [
    "-gencode=arch=compute_80,code=[sm_80,compute_80]",
    "-gencode=arch=compute_90a,code=sm_90a",
]

def _cuda_objects_impl(ctx):
    headers = depset(ctx.files.hdrs, transitive = [
        dep[CcInfo].compilation_context.headers
        for dep in ctx.attr.deps
    ])
    objects = []
    for source in ctx.files.srcs:
        object = ctx.actions.declare_file("%s/%s.pic.o" % (ctx.label.name, source.basename))
        arguments = ctx.actions.args()
        arguments.add_all(["-ccbin", "g++", "-std=c++20", "-O3", "-lineinfo", "-I."])
        # constexpr functions are for kernels too.
        arguments.add("--expt-relaxed-constexpr")
        arguments.add_all(_CODE)
        # Abseil's headers are not ours to mend.
        arguments.add_all(["-Xcompiler", "-fPIC,-fno-math-errno", "-w"])
        arguments.add_all(["-c", source, "-o", object])
        ctx.actions.run(
            executable = ctx.attr.toolkit + "/bin/nvcc",
            arguments = [arguments],
            inputs = depset([source], transitive = [headers]),
            outputs = [object],
            env = {"PATH": "/usr/bin:/bin"},
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s with nvcc" % source.short_path,
        )
        objects.append(object)
    return [DefaultInfo(files = depset(objects))]

_cuda_objects = rule(
    implementation = _cuda_objects_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "hdrs": attr.label_list(allow_files = True),
        "deps": attr.label_list(providers = [CcInfo]),
        "toolkit": attr.string(mandatory = True),
    },
)

def cuda_library(name, toolkit, srcs, hdrs = [], deps = [], visibility = None):
    """Compiles .cu files for the device and wraps them in a cc_library.

    Args:
      name: the cc_library.
      toolkit: TOOLKIT of @cuda//:cuda.bzl, not empty.
      srcs: .cu files.
      hdrs: their headers.
      deps: cc_library targets.
      visibility: of the cc_library.
    """
    _cuda_objects(
        name = name + "_objects",
        srcs = srcs,
        hdrs = hdrs,
        deps = deps,
        toolkit = toolkit,
    )
    native.cc_library(
        name = name,
        srcs = [":%s_objects" % name],
        hdrs = hdrs,
        # The runtime library is static and its symbols are hidden: what uses it
        # is linked into the same file.
        linkstatic = True,
        deps = deps + ["@cuda//:cudart"],
        visibility = visibility,
    )

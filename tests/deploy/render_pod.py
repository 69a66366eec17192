"""Prints the pod of a kustomize base as `podman play kube` takes it.

  render_pod.py BASE IMAGE MODEL_FOLDER

The pod is the Deployment's template. The image, the volumes and the restart
policy are replaced, the model's volume by MODEL_FOLDER on this machine; the list
of ports is left out, as podman would take them from this machine's.
"""

import pathlib
import shutil
import subprocess
import sys

import yaml


def documents(base):
    """Yields the base's resources, through kubectl where it is present."""
    if shutil.which("kubectl"):
        text = subprocess.run(["kubectl", "kustomize", base], check=True,
                              stdout=subprocess.PIPE, text=True).stdout
        return list(yaml.safe_load_all(text))
    folder = pathlib.Path(base)
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return [document for name in kustomization["resources"]
            for document in yaml.safe_load_all((folder / name).read_text())]


def volume(name, model_folder):
    if name == "model":
        return {"name": name,
                "hostPath": {"path": model_folder, "type": "Directory"}}
    return {"name": name, "emptyDir": {}}


def main(base, image, model_folder):
    (deployment,) = (d for d in documents(base) if d["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    template["metadata"]["name"] = deployment["metadata"]["name"]
    spec = template["spec"]
    (container,) = spec["containers"]
    container.update(image=image, imagePullPolicy="Never")
    container.pop("ports")
    # A Deployment's pods are started again when they end; this one is to be seen
    # ended.
    spec["restartPolicy"] = "Never"
    spec["volumes"] = [volume(v["name"], model_folder) for v in spec["volumes"]]
    yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **template}, sys.stdout,
                   sort_keys=False)


if __name__ == "__main__":
    main(*sys.argv[1:])

#!/usr/bin/env python3
"""Check scripts/launch/kubernetes/ against the published schemas of Kubernetes, Kubeflow Trainer and JobSet.

    check_manifests.py [FOLDER]

Needs `pip install kubernetes-validate==1.37.0 kubeflow-trainer-api==2.3.0 pyyaml`. Kinds of Kubernetes itself are checked
strictly (an unknown key is an error) with kubernetes-validate, TrainJob and TrainingRuntime with the models of
kubeflow-trainer-api, which hold the JobSet inside too. No package carries the schema of MPIJob v2beta1: its keys are
compared with those of the operator's swagger.json, and its pods checked as pods of a Job. Each file is also broken in
every place, by a key that does not exist, which must be found.
"""
import copy, pathlib, re, sys

import kubernetes_validate, yaml
import kubeflow_trainer_api.models as trainer

KUBERNETES = "1.37"
# kubeflow/mpi-operator: pkg/apis/kubeflow/v2beta1/swagger.json
MPI_JOB = {"mpiImplementation", "mpiReplicaSpecs", "runPolicy", "slotsPerWorker", "sshAuthMountPath", "waitForWorkers"}
MPI_RUN = {"activeDeadlineSeconds", "backoffLimit", "cleanPodPolicy", "schedulingPolicy", "suspend", "ttlSecondsAfterFinished"}
MPI_REPLICA = {"replicas", "restartPolicy", "template"}


def known(name, found, keys):
    if unknown := set(found) - keys:
        raise ValueError(f"{name}: unknown {', '.join(map(repr, sorted(unknown)))}")


def check_pod(name, template, restart):
    spec = {**template.get("spec", {}), "restartPolicy": restart}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": {**template, "spec": spec}}}
    kubernetes_validate.validate(job, KUBERNETES, strict=True)


def check_mpi_job(manifest):
    known("MPIJob", manifest, {"apiVersion", "kind", "metadata", "spec"})
    known("MPIJob.metadata", manifest["metadata"], {"name", "labels", "annotations", "namespace"})
    spec = manifest["spec"]
    known("MPIJob.spec", spec, MPI_JOB)
    known("MPIJob.spec.runPolicy", spec.get("runPolicy", {}), MPI_RUN)
    known("MPIJob.spec.mpiReplicaSpecs", spec["mpiReplicaSpecs"], {"Launcher", "Worker"})
    for role, replica in spec["mpiReplicaSpecs"].items():
        known(f"MPIJob {role}", replica, MPI_REPLICA)
        check_pod(role.lower(), replica["template"], replica["restartPolicy"])


def wrapped(node, inside=None):
    """The models hold quantities and ports in a box of their own."""
    if isinstance(node, dict):
        box = inside in ("limits", "requests")
        return {key: {"actual_instance": value} if box or (inside == "tcpSocket" and key == "port") else wrapped(value, key)
                for key, value in node.items()}
    return [wrapped(value) for value in node] if isinstance(node, list) else node


def check_trainer(manifest):
    model = getattr(trainer, f"TrainerV1alpha1{manifest['kind']}")
    model.model_validate(wrapped(manifest), extra="forbid")
    for job in manifest["spec"].get("template", {}).get("spec", {}).get("replicatedJobs", []):
        check_pod(job["name"], job["template"]["spec"]["template"], "Never")


def check(manifest):
    kind = (manifest["apiVersion"], manifest["kind"])
    if kind == ("kubeflow.org/v2beta1", "MPIJob"):
        check_mpi_job(manifest)
    elif kind[0] == "trainer.kubeflow.org/v1alpha1":
        check_trainer(manifest)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def places(node, path=()):
    """Every table of a manifest that has a schema of its own: not names that are free."""
    if isinstance(node, dict):
        if not path or path[-1] not in ("labels", "limits", "requests", "selector", "annotations", "mpiReplicaSpecs"):
            yield path
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for at, value in enumerate(node):
            yield from places(value, (*path, at))


def missed(manifest):
    """The places where an unknown key is not found."""
    for path in places(manifest):
        broken = copy.deepcopy(manifest)
        table = broken
        for key in path:
            table = table[key]
        table["noSuchKey"] = "x"
        try:
            check(broken)
        except Exception:
            continue
        yield ".".join(map(str, path)) or "the top"


here = pathlib.Path(__file__).resolve().parent
folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent / "launch" / "kubernetes"
failed = 0
for path in sorted(folder.glob("*.yaml")):
    text = re.sub(r"\$\{SEEDCORN_IMAGE\}", "registry.example/seedcorn:test", path.read_text())
    for manifest in yaml.safe_load_all(text):
        try:
            check(manifest)
            blind = list(missed(manifest))
            said = f"unknown keys pass at {', '.join(blind)}" if blind else "ok"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        failed += said != "ok"
        print(f"{path.name}: {manifest['kind']}: {said}")
sys.exit(1 if failed else 0)

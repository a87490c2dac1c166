"""The generated files, the examples, and what the manifests give away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shield_operator.api.ingestjob import IngestJob
from shield_operator.api.ingestschedule import IngestSchedule
from shield_operator.api.knowledgebase import KnowledgeBase
from shield_operator.ingestjobs.verdict import EXIT_REASONS
from shield_operator.manifests import crd
from shield_operator.manifests.__main__ import dump, main
from shield_operator.manifests.operator import Options, operator_manifests
from shield_operator.manifests.reference import guide
from shield_operator.settings import Settings

ROOT = Path(__file__).parents[4]
KINDS = {kind.__name__: kind for kind in (IngestJob, IngestSchedule, KnowledgeBase)}
OBJECTS = operator_manifests(Options(namespace="elsewhere", image="op:1", worker_image="worker:2", orchestrator_url="http://o:1"))


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [found for found in OBJECTS if found["kind"] == kind]


@pytest.fixture
def one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the smallest CRD: the others take a second each to write."""
    monkeypatch.setattr("shield_operator.manifests.__main__.KINDS", [kind for kind in crd.KINDS if kind.model is KnowledgeBase])


class TestGeneratedFiles:
    def test_are_up_to_date(self) -> None:
        assert main(["--check", "--root", str(ROOT)]) == 0

    @pytest.mark.usefixtures("one_kind")
    def test_drift_is_noticed_named_and_mended(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        missing, edited = "operator/manifests/crds/knowledgebases.yaml", "operator/manifests/operator.yaml"
        names = [edited, "docs/CRD_REFERENCE.md", "docs/KUBERNETES.md"]
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        (tmp_path / edited).write_text("edited")
        assert main(["--check", "--root", str(tmp_path)]) == 1
        assert {line.split()[0] for line in capsys.readouterr().err.splitlines()} == {edited, missing}
        assert (tmp_path / edited).read_text() == "edited"
        assert main(["--root", str(tmp_path)]) == 0
        assert all((tmp_path / name).read_bytes() == (ROOT / name).read_bytes() for name in (*names, missing))

    def test_a_guide_without_its_marks_is_noticed(self) -> None:
        with pytest.raises(ValueError, match="the marks of permissions are missing"):
            guide("# On Kubernetes")

    @pytest.mark.usefixtures("one_kind")
    def test_printing_gives_crds_first_and_takes_names(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--print", "--image", "op:1", "--namespace", "elsewhere"]) == 0
        objects = list(yaml.safe_load_all(capsys.readouterr().out))
        assert [found["kind"] for found in objects[:2]] == ["CustomResourceDefinition", "Namespace"]
        assert objects[1]["metadata"]["name"] == "elsewhere"

    def test_the_same_thing_twice_is_written_twice(self) -> None:
        same = {"a": 1}
        assert "&id" not in dump([{"one": same, "two": same}])


class TestExamples:
    @pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.yaml")), ids=lambda path: path.stem)
    def test_are_accepted_by_the_models_and_commented(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ")
        ours = [found for found in yaml.safe_load_all(text) if found["apiVersion"].startswith("shield.")]
        assert [KINDS[found["kind"]].model_validate(found).kind for found in ours] == [found["kind"] for found in ours]


class TestTheGuide:
    TEXT = (ROOT / "docs" / "KUBERNETES.md").read_text(encoding="utf-8")

    def test_names_settings_that_exist(self) -> None:
        named = set(re.findall(r"SHIELD_OPERATOR_([A-Z_]+)", self.TEXT))
        assert named
        assert named <= {name.upper() for name in Settings.model_fields}

    def test_links_to_files_that_exist(self) -> None:
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", self.TEXT)]
        assert all((ROOT / "docs" / link).exists() for link in links if link and not link.startswith("http"))

    def test_names_every_exit_code_that_ends_a_job(self) -> None:
        assert "(2, 10 to 14); partial (20)" in self.TEXT
        assert set(EXIT_REASONS) == {2, 10, 11, 12, 13, 14, 20}

    def test_uses_options_that_exist(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])
        offered = capsys.readouterr().out
        (command,) = re.findall(r"shield_operator\.manifests --print(.*?)>", self.TEXT, re.DOTALL)
        assert all(option in offered for option in re.findall(r"--[a-z-]+", command))


class TestRights:
    def rules(self) -> list[dict[str, Any]]:
        return [rule for kind in ("ClusterRole", "Role") for role in of_kind(kind) for rule in role["rules"]]

    def test_nobody_gets_secrets_or_everything(self) -> None:
        for rule in self.rules():
            assert not {"*", "secrets", "serviceaccounts", "pods/exec", "roles"} & set(rule["resources"])
            assert "*" not in [*rule["verbs"], *rule["apiGroups"]]

    def test_the_operator_changes_no_pod_and_no_claim(self) -> None:
        (role,) = (role for role in of_kind("ClusterRole") if role["metadata"]["name"] == "shield-operator")
        verbs = {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
        assert verbs["pods"] == {"list"}
        assert verbs["persistentvolumeclaims"] == {"get"}
        assert verbs["events"] == {"create"}
        assert "update" not in verbs["ingestjobs"] | verbs["ingestschedules"] | verbs["knowledgebases"]

    def test_leases_are_only_those_of_its_own_namespace(self) -> None:
        (role,) = of_kind("Role")
        assert role["metadata"]["namespace"] == "elsewhere"
        assert [rule["resources"] for rule in role["rules"]] == [["leases"]]

    def test_every_binding_names_the_one_service_account(self) -> None:
        for binding in [*of_kind("ClusterRoleBinding"), *of_kind("RoleBinding")]:
            assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "shield-operator", "namespace": "elsewhere"}]

    def test_users_who_edit_a_namespace_may_ingest(self) -> None:
        roles = {role["metadata"]["name"]: role for role in of_kind("ClusterRole")}
        assert roles["shield-edit"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
        assert "rbac.authorization.k8s.io/aggregate-to-view" not in roles["shield-edit"]["metadata"]["labels"]
        assert not any("status" in resource for rule in roles["shield-edit"]["rules"] for resource in rule["resources"])


class TestDeployment:
    def test_is_restricted(self) -> None:
        pod = of_kind("Deployment")[0]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }

    def test_takes_the_options(self) -> None:
        (container,) = of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"]
        environment = {item["name"]: item["value"] for item in container["env"]}
        assert container["image"] == "op:1"
        assert environment["SHIELD_OPERATOR_WORKER_IMAGE"] == "worker:2"
        assert environment["SHIELD_OPERATOR_ORCHESTRATOR_URL"] == "http://o:1"

    def test_files_it_is_told_of_are_mounted(self) -> None:
        pod = of_kind("Deployment")[0]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        files = [item["value"] for item in container["env"] if item["name"].endswith("_FILE")]
        assert len(files) == 2
        assert all(str(Path(file).parent) in mounts for file in files)
        assert "pod.yaml" in of_kind("ConfigMap")[0]["data"]

    def test_an_open_orchestrator_needs_no_secret(self) -> None:
        (deployment,) = (found for found in operator_manifests(Options(api_key_secret="")) if found["kind"] == "Deployment")
        assert "SHIELD_OPERATOR_API_KEY_FILE" not in str(deployment)
        assert "secret" not in str(deployment["spec"]["template"]["spec"]["volumes"])

    def test_every_setting_is_one_of_the_operators(self) -> None:
        (container,) = of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"]
        known = {f"SHIELD_OPERATOR_{name.upper()}" for name in Settings.model_fields}
        assert {item["name"] for item in container["env"]} <= known

    def test_a_drain_takes_one_replica_at_a_time(self) -> None:
        (budget,) = of_kind("PodDisruptionBudget")
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"] == of_kind("Deployment")[0]["spec"]["selector"]

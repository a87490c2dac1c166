"""Certificates say who their owner is, to Kubernetes."""

from __future__ import annotations

import base64
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kind.components import Serving, make_credentials
from kind.pki import ADMINISTRATORS, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_client_has_its_name_and_group_and_may_not_serve(authority: Authority) -> None:
    certificate = read(authority.issue("admin", "kubernetes-admin", group=ADMINISTRATORS).certificate)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "kubernetes-admin"
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:masters"
    assert usages(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_server_has_its_names_and_addresses(authority: Authority) -> None:
    certificate = read(authority.issue("apiserver", "kube-apiserver", hosts=["kubernetes", "10.96.0.1"]).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes"]
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("10.96.0.1")]
    assert ExtendedKeyUsageOID.SERVER_AUTH in usages(certificate)


def test_all_are_signed_by_the_authority_which_signs_no_other_authority(authority: Authority) -> None:
    root = read(authority.certificate)
    leaf = read(authority.issue("x", "x").certificate)
    leaf.verify_directly_issued_by(root)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_keys_and_their_directory_are_their_owners_only(authority: Authority, tmp_path: Path) -> None:
    authority.issue("x", "x")
    authority.key_pair("service-accounts")
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    keys = sorted((tmp_path / "pki").glob("*.key"))
    assert [key.name for key in keys] == ["ca.key", "service-accounts.key", "x.key"]
    assert all(key.stat().st_mode & 0o777 == 0o600 for key in keys)


def test_keys_are_elliptic(authority: Authority) -> None:
    assert isinstance(read(authority.certificate).public_key(), ec.EllipticCurvePublicKey)


def test_kubeconfigs_hold_the_certificates_and_name_the_server(tmp_path: Path) -> None:
    make_credentials(tmp_path, Serving("10.250.3.1", 6443, "10.99.0.0/16", "10.99.0.1"))
    for name, user in (("kubeconfig", "kubernetes-admin"), ("scheduler.conf", "system:kube-scheduler")):
        content = yaml.safe_load((tmp_path / name).read_text(encoding="utf-8"))
        assert content["clusters"][0]["cluster"]["server"] == "https://10.250.3.1:6443"
        certificate = x509.load_pem_x509_certificate(base64.b64decode(content["users"][0]["user"]["client-certificate-data"]))
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == user
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_the_api_server_is_known_under_its_service_and_its_address(tmp_path: Path) -> None:
    make_credentials(tmp_path, Serving("10.250.3.1", 6443, "10.99.0.0/16", "10.99.0.1"))
    names = read(tmp_path / "pki" / "apiserver.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"kubernetes.default.svc", "kubernetes.default.svc.cluster.local"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"10.99.0.1", "10.250.3.1", "127.0.0.1"} == {str(address) for address in names.get_values_for_type(x509.IPAddress)}

"""docker-compose.yml is valid, and says the same as the code and the docs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import msgspec
import pytest
import typer.main
import yaml
from examples.orders import __main__ as orders
from examples.orders import home
from tests.deploy.compose import COMPOSE, OURS, PROJECT, ROOT, SERVICES, arguments, filled, variables
from tests.support.containers import IMAGES
from tests.support.processes import amends
from tests.support.servers import PrivateRedis

from amends.brokers.settings import Settings
from amends.coordinator.cli import build
from amends.coordinator.loading import load_parts

PAGE = (ROOT / "docs/deploy.md").read_text("utf-8")
EXAMPLE = "amends.examples.orders"

of_ours = pytest.mark.parametrize("name", OURS)
of_all = pytest.mark.parametrize("name", SERVICES)


def test_it_is_a_compose_file() -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text("utf-8"))
    jsonschema.Draft7Validator(schema).validate(COMPOSE)
    # the schema is one that can say no
    broken = {**COMPOSE, "services": {"redis": {**SERVICES["redis"], "restarts": "always"}}}
    with pytest.raises(jsonschema.ValidationError, match="restarts"):
        jsonschema.Draft7Validator(schema).validate(broken)


@of_all
def test_every_service_is_kept_running_and_watched(name: str) -> None:
    service = SERVICES[name]
    if name == "customers":
        assert (service["restart"], service["healthcheck"]) == ("no", {"disable": True})
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["healthcheck"].keys() >= {"interval", "timeout", "start_period"}


@of_all
def test_images_are_pinned_and_those_of_the_tests_and_the_docs(name: str) -> None:
    image = SERVICES[name]["image"]
    repository, _, tag = image.partition(":")
    assert re.match(r"v?\d", tag), f"{image} has no version"
    known = {image.name.partition(":")[0]: image.name for image in IMAGES.values()}
    if repository in known:
        assert image.removesuffix("-management") == known[repository]
    assert f"`{image}`" in PAGE


@of_all
def test_ports_are_open_to_this_machine_only_and_are_in_the_docs(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        address, outside, inside = port.split(":")
        assert (address, outside) == ("127.0.0.1", inside)
        assert re.search(rf"^\| `{name}` \| .*\b{inside}\b", PAGE, re.M), f"{inside} of {name} is not in docs/deploy.md"


def test_ports_in_the_docs_are_open() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `[^`]+` \| ([\d, ]*) \|", PAGE, re.M)
    assert {name for name, _ in rows} == set(SERVICES) - set(OURS)
    for name, ports in rows:
        assert [port.split(":")[1] for port in SERVICES[name]["ports"]] == re.findall(r"\d+", ports)


def test_ports_of_the_servers_are_those_that_the_code_takes_for_granted() -> None:
    for image in IMAGES.values():
        (service,) = (one for one in SERVICES.values() if one["image"].removesuffix("-management") == image.name)
        assert f"127.0.0.1:{image.port}:{image.port}" in service["ports"]
        assert f"host:{image.port}" in (ROOT / "docs/servers.md").read_text("utf-8")


@of_all
def test_what_it_waits_for_exists_and_can_be_healthy(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == "service_healthy"
        assert "test" in SERVICES[other]["healthcheck"]
        # one that only a profile starts must not be needed
        needed = how.get("required", True)
        assert not needed or set(SERVICES[other].get("profiles", [])) <= set(SERVICES[name].get("profiles", []))


def test_volumes_and_mounted_files_exist() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    named = {source for source, *_ in mounts if not source.startswith(".")}
    assert named == set(COMPOSE["volumes"])
    files = [mount for mount in mounts if mount[0].startswith(".")]
    assert len(files) == 2
    for source, _, mode in files:
        assert (ROOT / source).exists()
        assert mode == "ro"


def test_profiles_are_those_of_the_docs() -> None:
    used = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert set(re.findall(r"--profile (\w+)", PAGE)) | {"customers"} == used == {"kafka", "customers"}
    assert "docker compose run --rm customers" in PAGE


# variables


def test_variables_are_those_of_the_docs_with_the_same_defaults() -> None:
    used: dict[str, str] = {}
    for name, default in variables(yaml.safe_dump(COMPOSE, width=10_000)).items():
        assert used.setdefault(name, default) == default
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", PAGE, re.M))
    assert rows == used


@of_ours
def test_variables_of_the_processes_are_settings(name: str) -> None:
    settings = {f"AMENDS_{field.name.upper()}": field for field in msgspec.structs.fields(Settings)}
    environment = filled(SERVICES[name]["environment"])
    for variable, value in environment.items():
        if variable.startswith("AMENDS_"):
            msgspec.convert(value, settings[variable].type, strict=False)
        else:
            assert variable in (home.VARIABLE, home.BROKER, home.STORE)


@of_ours
def test_urls_lead_to_servers_with_their_passwords(name: str) -> None:
    secret = {"RABBITMQ_PASSWORD": "rabbits", "REDIS_PASSWORD": "dictionary"}
    environment = filled(SERVICES[name]["environment"], **secret)
    urls = [urlsplit(value) for value in environment.values() if "://" in value]
    assert len(urls) >= 2
    for url in urls:
        assert url.hostname in SERVICES[name]["depends_on"] or name == "customers"
        assert f"127.0.0.1:{url.port}:{url.port}" in SERVICES[str(url.hostname)]["ports"]
        server = filled(SERVICES[str(url.hostname)], **secret)
        if url.hostname == "redis":
            assert server["command"][server["command"].index("--requirepass") + 1] == url.password == "dictionary"
            assert server["environment"]["REDISCLI_AUTH"] == url.password
        else:
            assert server["environment"]["RABBITMQ_DEFAULT_USER"] == url.username
            assert server["environment"]["RABBITMQ_DEFAULT_PASS"] == url.password == "rabbits"


def test_kafka_is_reached_under_the_name_that_it_gives_itself() -> None:
    environment = SERVICES["kafka"]["environment"]
    listeners = dict(one.split("://") for one in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(one.split("://") for one in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert {name: address.partition(":")[2] for name, address in advertised.items()} == {
        name: address.lstrip(":") for name, address in listeners.items() if name != "CONTROLLER"
    }
    assert f"BROKER_URL=kafka://{advertised['INSIDE']} docker compose --profile kafka up" in PAGE
    assert environment["KAFKA_LOG_DIRS"] == SERVICES["kafka"]["volumes"][0].partition(":")[2]


# commands


def parse(words: list[str]) -> None:
    """Let the command line's own parser read it; raises for what it would refuse."""
    assert words[0] == "amends"
    group = typer.main.get_command(build())
    with group.make_context("amends", words[1:2], resilient_parsing=True) as context:
        assert isinstance(group, typer.core.TyperGroup)
        command = group.get_command(context, words[1])
        assert command is not None, words
        with command.make_context(words[1], words[2:]):
            pass


@of_ours
def test_commands_are_commands(name: str) -> None:
    words = arguments(SERVICES[name])
    if name == "customers":
        assert words[:3] == ["python", "-m", EXAMPLE]
        assert orders._parser().parse_args(words[3:]).elsewhere
        return
    parse(words)
    health = SERVICES[name]["healthcheck"]["test"]
    parse(health[1:])
    assert float(health[-1]) < float(SERVICES[name]["healthcheck"]["timeout"].removesuffix("s"))


@pytest.mark.parametrize("words", [["amends", "run"], ["amends", "rum", "x"], ["amends", "ping", "--stroe", "x"]])
def test_a_command_that_is_none_is_noticed(words: list[str]) -> None:
    with pytest.raises((typer.BadParameter.__mro__[1], AssertionError)):  # type: ignore[arg-type]
        parse(words)


@of_ours
def test_modules_hold_what_is_to_run(name: str) -> None:
    if name == "customers":
        return
    (target,) = arguments(SERVICES[name])[2:]
    # the wheel has the example under this name
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["examples/orders"].replace("/", ".") == EXAMPLE
    module = target.replace(EXAMPLE, "examples.orders")
    import_module(module)
    parts = load_parts([module])
    assert [one.service for one in parts.participants] == ([] if name == "coordinator" else [name])
    assert bool(parts.sagas) == (name == "coordinator")


def test_the_home_of_the_example_is_the_volume() -> None:
    for name in OURS:
        assert f"orders:{SERVICES[name]['environment'][home.VARIABLE]}" in SERVICES[name]["volumes"]
    assert SERVICES["customers"]["environment"][home.VARIABLE] in arguments(SERVICES["customers"])


# what watches


def test_prometheus_and_grafana_look_at_services_that_are_there() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    targets = [target for job in scraped for config in job["static_configs"] for target in config["targets"]]
    folder = ROOT / "deploy/grafana/provisioning/datasources"
    sources = [one for file in folder.iterdir() for one in yaml.safe_load(file.read_text("utf-8"))["datasources"]]
    for address in [*targets, *(source["url"].removeprefix("http://") for source in sources)]:
        host, _, port = address.partition(":")
        service = "prometheus" if host == "localhost" else host
        assert f"127.0.0.1:{port}:{port}" in SERVICES[service]["ports"]
    assert {source["type"] for source in sources} <= set(SERVICES)


# redis


@pytest.mark.slow
def test_redis_is_set_up_so_that_the_store_has_nothing_to_warn_of(
    tmp_path: Path, private_redis: Callable[..., PrivateRedis]
) -> None:
    words = filled(SERVICES["redis"]["command"])
    options = dict(zip(words[1::2], words[2::2], strict=True))
    server = private_redis({name.removeprefix("--"): value for name, value in options.items()})
    url = server.url.replace("redis://", f"redis://:{options['--requirepass']}@")
    ended = amends("ping", "--store", url, "--json", cwd=tmp_path)
    store = json.loads(ended.stdout)["parts"][1]
    assert (store["part"], store["problem"]) == ("store", None)
    assert ended.stderr == ""

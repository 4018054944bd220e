"""static/ is an npm package: it has the right files, can be imported, and its types fit the client and the docs."""

import json
import re
import shutil
import tomllib

import pytest
from conftest import ROOT, need
from npm import install, link_others, run

from pushrelay import __version__

STATIC = ROOT / "static"
CONTENTS = {
    "LICENSE",
    "README.md",
    "globals.d.ts",
    "package.json",
    "relay.d.ts",
    "relay.js",
    "relay.min.js",
    "relay.min.js.map",
    "relay.mjs",
}
DOCS = (ROOT / "docs" / "socket-api.md").read_text()
TYPES = (STATIC / "relay.d.ts").read_text()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the client installed from its tarball, without access to a registry."""
    folder = tmp_path_factory.mktemp("project")
    install(folder)
    link_others(folder)
    return folder


@pytest.fixture(scope="module")
def packed(project):
    """The facts that npm printed about the package."""
    return json.loads((project / "packed.json").read_text())


def tsc(project, *files):
    """Check TypeScript files as strictly as the compiler can."""
    need((project / "node_modules" / "typescript").exists(), "TypeScript (npm install --prefix tests)")
    options = ["--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom", "--noUncheckedIndexedAccess"]
    module = ["--module", "nodenext", "--exactOptionalPropertyTypes", "--types", ""]
    run("node", "node_modules/typescript/bin/tsc", *options, *module, *files, cwd=project)


def in_node(project, program):
    return json.loads(run("node", "--input-type=module", "-e", program, cwd=project))


def test_the_package_has_these_files_and_the_version_of_the_relay(packed):
    assert {file["path"] for file in packed["files"]} == CONTENTS
    assert (packed["name"], packed["version"]) == ("pushrelay", __version__)
    facts = json.loads((STATIC / "package.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert facts["license"] == project["license"] and "dependencies" not in facts
    assert (STATIC / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    named = re.findall(r'"\./([\w.]+)"', json.dumps(facts))
    assert set(named) <= CONTENTS | {"src"}, "exports, types, unpkg and so on name files that are packed"


def test_the_package_can_be_imported(project):
    program = """
        const module = await import("pushrelay");
        await import("pushrelay/relay.js");
        const types = [typeof Relay.connect, typeof io.connect];
        console.log(JSON.stringify([Object.keys(module), ...types, Relay !== module.Relay]));
    """
    assert in_node(project, program) == [["Relay", "io"], "function", "function", True]
    run("node", "-e", 'require("pushrelay").Relay.connect.name', cwd=project)


def test_the_example_has_no_type_errors_and_its_mistakes_are_errors(project):
    shutil.copy(ROOT / "tests/client_js/types/example.ts", project)
    (project / "globals.ts").write_text(
        'import "pushrelay/relay.js";\n'
        "const relay: Relay = Relay.connect();\n"
        "io.connect().on('push', ({ data }) => relay.push('42', data));\n"
        "// @ts-expect-error: the globals have types\n"
        "relay.push();\n"
    )
    tsc(project, "example.ts", "globals.ts")


def test_the_example_of_the_docs_has_no_type_errors(project):
    from lab import snippets

    texts = [each.text for each in snippets() if each.page == "docs/javascript.md" and each.text.startswith("import {")]
    assert len(texts) == 3 and any("interface" in text for text in texts)
    for n, text in enumerate(texts):
        (project / f"snippet{n}.ts").write_text(text)
    tsc(project, *(f"snippet{n}.ts" for n in range(len(texts))))


def test_the_types_have_each_public_member_and_no_other(project):
    """tsc compares the members that the client has at run time with those of the types."""
    members = in_node(
        project,
        """
        const { Relay, io } = await import("pushrelay");
        const names = (object, all = new Set()) => {
            if (object === Object.prototype) return [...all].filter((name) => !/^_|^constructor$/.test(name));
            Object.getOwnPropertyNames(object).forEach((name) => all.add(name));
            return names(Object.getPrototypeOf(object), all);
        };
        const socket = io("http://127.0.0.1:9", { autoConnect: false });
        const relay = Relay.connect("http://127.0.0.1:9").close();
        const builtIn = ["length", "name", "prototype"];
        const functions = (it) => Object.getOwnPropertyNames(it).filter((name) => !builtIn.includes(name));
        console.log(JSON.stringify({
            "Relay": names(relay), "Socket": names(socket), "Socket['io']": names(socket.io),
            "typeof io": functions(io), "Omit<typeof Relay, 'prototype'>": functions(Relay),
            "Registration": [...functions(relay.register("42")), "then", "catch", "finally"],
            "RoomPromise": [...functions(relay.presence("42")), "then", "catch", "finally"],
        }));
    """,
    )
    lines = ['import type { Relay, Registration, RoomPromise, Socket, io } from "pushrelay";']
    for type_, names in members.items():
        fields = ", ".join(f"{json.dumps(name)}: true" for name in names)
        lines.append(f"({{ {fields} }}) satisfies Record<Exclude<keyof ({type_}), symbol>, true>;")
    (project / "members.ts").write_text("\n".join(lines))
    tsc(project, "members.ts")


def interface(name):
    """Return the names of an interface's fields."""
    body = re.search(rf"^export interface {name}\b.*?^}}", TYPES, re.M | re.S)[0]
    return set(re.findall(r"^  (\w+)\??:", body, re.M))


def literals(name):
    """Return the texts of a union."""
    return set(re.findall(r'"([\w*]+)"', re.search(rf"^export type {name} =(.*?);$", TYPES, re.M | re.S)[1]))


def documented(beginning):
    """Return the words in code in a paragraph of the docs."""
    paragraph = next(each for each in DOCS.split("\n\n") if each.startswith(beginning))
    return set(re.findall(r"`(\w+)`", paragraph))


def test_the_types_and_the_docs_have_the_same_methods():
    listed = set(re.findall(r"^    relay\.(\w+)\(", DOCS, re.M))
    classes = re.search(r"^export class Relay.*?^}", TYPES, re.M | re.S)[0]
    typed = set(re.findall(r"^  (\w+)[<(]", classes, re.M)) - {"off", "once", "removeListener", "removeAllListeners"}
    assert listed == typed
    pages = DOCS + (ROOT / "docs" / "presence.md").read_text() + (ROOT / "docs" / "requests.md").read_text()
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", pages))))
    all_typed = re.findall(r"^  (?:readonly |static )?(\w+)\??[<(:]", TYPES, re.M)
    assert not {name for name in all_typed if name not in words}


def test_the_types_and_the_docs_have_the_same_options():
    table = next(each for each in DOCS.split("\n\n") if each.startswith("| option | default |"))
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == interface("Options")
    assert interface("SocketOptions") <= documented("The options `path`")
    for name in interface("RegisterOptions"):
        assert re.search(rf"register\(.*\b{name}\b", DOCS), name


def test_the_types_and_the_docs_have_the_same_statuses():
    line = re.search(r'relay\.on\("status".*?// (.*)', DOCS)[1]
    assert set(line.split(", ")) == literals("Status") | literals("State")


def test_each_error_code_of_the_types_is_documented():
    pages = [DOCS, *((ROOT / "docs" / f"{name}.md").read_text() for name in ("http-api", "requests", "presence"))]
    codes = literals("ErrorCode")
    assert len(codes) > 30
    assert not [code for code in codes if not any(f"`{code}`" in page for page in pages)]

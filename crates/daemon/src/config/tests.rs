//! The file against the flags: what overrides what, what is refused and how, and that the documents are true.

use super::*;

fn words(text: &str) -> Vec<OsString> {
    std::iter::once("berthd").chain(text.split_whitespace()).map(OsString::from).collect()
}

fn with_file(text: &str, flags: &str) -> Result<Resolved, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    resolve(&words(&format!("--config {} {flags}", path.display()))).unwrap()
}

#[track_caller]
fn refused(text: &str) -> String {
    let error = with_file(text, "").unwrap_err().to_string();
    error.split_once("config.toml").unwrap().1.to_owned()
}

#[test]
fn flags_over_file_over_defaults() {
    let file =
        "root = \"/a\"\nstate = \"/b\"\ngroup = 7\nprivate = true\nlog-opt = [\"max-size=1m\", \"max-file=2\"]\n";
    let resolved = with_file(file, "--state /c --log-opt max-size=9m").unwrap();
    let options = &resolved.options;
    assert_eq!((options.root.to_str(), options.state.to_str()), (Some("/a"), Some("/c")));
    assert_eq!((options.group, options.private, options.bridge.as_str()), (Some(7), true, "berth0"));
    assert_eq!(options.log_opt, ["max-size=9m"], "a list given by flags replaces that of the file");
    let dumped = dump(&resolved);
    for line in
        ["state = \"/c\" # flag --state", "group = \"7\" # ", "bridge = \"berth0\" # default", "private = true # "]
    {
        assert!(dumped.contains(line), "{line} in\n{dumped}");
    }
    assert!(dumped.contains("config.toml, line 1\n"), "{dumped}");
}

#[test]
fn refusals_name_the_line_and_the_way_out() {
    assert_eq!(
        refused("root = \"/a\"\nlog_level = \"info\"\n"),
        ", line 2: unknown key \"log_level\"; is log-level meant?"
    );
    assert_eq!(refused("\n\nnonsense = 1\n"), ", line 3: unknown key \"nonsense\"");
    assert_eq!(refused("private = \"yes\"\n"), ", line 1: private is not true or false");
    assert_eq!(refused("root = [\"/a\"]\n"), ", line 1: root is not a string or a number");
    assert_eq!(
        refused("log-opt = \"max-size=1m\"\n"),
        ", line 1: log-opt is not a list of strings, as in [\"a\", \"b\"]"
    );
    let format = refused("# a comment\nlog-format = \"xml\"\n");
    assert!(format.starts_with(", line 2: invalid value 'xml' for '--log-format"), "{format}");
    assert!(refused("root = \n").starts_with(", line 1: "), "{}", refused("root = \n"));
    assert!(refused("config = \"/x\"\n").contains("unknown key \"config\""));
    let missing = resolve(&words("--config /no/such/file")).unwrap().unwrap_err();
    assert!(missing.to_string().contains("/no/such/file"), "{missing}");
}

/// Keys that only make sense together may come from either place.
#[test]
fn ipv6_of_the_file_and_its_subnet_as_a_flag() {
    for (file, flags) in [
        ("subnet6 = \"fd00:1::/64\"\nipv6 = true\n", ""),
        ("ipv6 = true\n", "--subnet6 fd00:1::/64"),
        ("subnet6 = \"fd00:1::/64\"\n", "--ipv6"),
    ] {
        let options = with_file(file, flags).unwrap().options;
        assert_eq!((options.ipv6, options.subnet6.as_deref()), (true, Some("fd00:1::/64")), "{file} {flags}");
    }
}

/// The file that is given to begin with is valid and changes nothing.
#[test]
fn the_default_file_is_the_default() {
    let resolved = with_file(&default_file(), "").unwrap();
    let plain = resolve(&words("--config /dev/null")).unwrap().unwrap();
    let values = |resolved: &Resolved| {
        dump(resolved).lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&resolved), values(&plain));
}

#[test]
fn the_reference_is_true() {
    let document = include_str!("../../../../docs/configuration.md");
    assert!(document == reference(), "docs/configuration.md differs from `berthd config reference`:\n{}", reference());
    for arg in keys(&Options::command()) {
        assert!(!reference::help(arg).is_empty(), "{} is not documented", long(arg));
    }
}

/// S-122: tables of runtimes stand for flags; what is wrong in one is refused with its line.
#[test]
fn s122_tables_of_runtimes() {
    let file = "root = \"/a\"\n[runtimes.crun]\npath = \"/usr/bin/crun\"\nargs = [\"--debug\"]\n\n[runtimes.kata]\n\
                type = \"io.containerd.kata.v2\"\noptions = { ConfigPath = \"/k.toml\" }\n";
    let options = with_file(file, "").unwrap().options;
    assert_eq!(
        options.add_runtime,
        [
            r#"crun={"args":["--debug"],"path":"/usr/bin/crun"}"#,
            r#"kata={"options":{"ConfigPath":"/k.toml"},"type":"io.containerd.kata.v2"}"#
        ]
    );
    assert!(refused("[runtimes.x]\npath = \"bin/x\"\n").contains("has a path that is not absolute"));
    assert!(refused("\n[runtimes.x]\nno-such = 1\n").starts_with(", line 2: "));
    assert_eq!(refused("runtimes = 1\n"), ", line 1: unknown key \"runtimes\"");
}

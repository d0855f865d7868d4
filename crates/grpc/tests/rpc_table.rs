//! The table of RPCs in `docs/containerd.md` is complete, and names tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/grpc is two below the root")
}

/// `package.Service/Method` of everything in the definitions.
fn rpcs() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(berth_containerd_api::DESCRIPTORS).expect("the build made them");
    let mut found = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                found.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    found
}

/// S-112: every RPC has its line with a test that there is, and no line speaks of an RPC that does not exist.
#[test]
fn s112_table_of_rpcs() {
    let text = std::fs::read_to_string(workspace().join("docs/containerd.md")).unwrap();
    let mut tests = String::new();
    for entry in std::fs::read_dir(workspace().join("tests/e2e/tests/containerd")).unwrap() {
        tests.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let mut listed = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, rpc, state, test, _] = cells[..] else { panic!("{line}") };
        listed.insert(rpc.trim_matches('`').to_owned());
        assert!(!state.is_empty(), "{line}");
        assert!(tests.contains(&format!("fn {test}(")), "{test} is no test: {line}");
    }
    assert_eq!(listed, rpcs());
}

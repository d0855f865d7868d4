//! The table of RPCs in `docs/containerd.md` is that of the definitions, and names tests that exist. `BERTH_BLESS=1` writes it anew: what was said of an
//! RPC stays.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use prost::Message as _;
use prost_types::FileDescriptorSet;

const HEAD: &str = "| RPC | state | test |\n|---|---|---|\n";

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/grpc is two below the root")
}

/// `package.Service/Method` of everything in the definitions, in their order.
fn rpcs() -> Vec<String> {
    let set = FileDescriptorSet::decode(berth_containerd_api::DESCRIPTORS).expect("the build made them");
    let mut found = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                found.push(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    found
}

/// State and test by RPC, as the page has them.
fn said(page: &str) -> BTreeMap<String, [String; 2]> {
    let mut said = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, rpc, state, test, _] = <[&str; 5]>::try_from(cells).expect("a line has three cells");
        let twice = said.insert(rpc.trim_matches('`').to_owned(), [state, test].map(str::to_owned));
        assert!(twice.is_none(), "{rpc} has two lines");
    }
    said
}

/// The page with the table of these RPCs.
fn with_table(page: &str, rpcs: &[String]) -> String {
    let (before, rest) = page.split_once(HEAD).expect("the page has the table");
    let after: String = rest.lines().skip_while(|line| line.starts_with('|')).flat_map(|line| [line, "\n"]).collect();
    let mut said = said(page);
    let mut table = HEAD.to_owned();
    for rpc in rpcs {
        let [state, test] = said.remove(rpc).unwrap_or_default();
        writeln!(table, "| `{rpc}` | {state} | {test} |").expect("a String takes everything");
    }
    format!("{before}{table}{after}")
}

/// S-112: every RPC has its line with a test that there is, and no line speaks of an RPC that does not exist.
#[test]
fn s112_table_of_rpcs() {
    let path = workspace().join("docs/containerd.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    let generated = with_table(&page, &rpcs());
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
        page.clone_from(&generated);
    }
    assert_eq!(page, generated, "BERTH_BLESS=1 cargo test -p berth-grpc --test rpc_table writes it anew");
    let mut tests = String::new();
    for entry in std::fs::read_dir(workspace().join("tests/e2e/tests/containerd")).unwrap() {
        tests.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    for (rpc, [state, test]) in said(&page) {
        assert!(!state.is_empty(), "what of {rpc} is done?");
        assert!(tests.contains(&format!("fn {test}(")), "{test} is no test: {rpc}");
    }
}

/// What was said stays, what is new has an empty line, what is gone has none.
#[test]
fn the_table_follows_the_definitions() {
    let page = format!("a\n{HEAD}| `x/A` | done | t1 |\n| `x/B` | not | t2 |\n\nb\n");
    let rpcs = ["x/C", "x/B"].map(str::to_owned);
    let expected = format!("a\n{HEAD}| `x/C` |  |  |\n| `x/B` | not | t2 |\n\nb\n");
    assert_eq!(with_table(&page, &rpcs), expected);
    assert_eq!(with_table(&expected, &rpcs), expected);
}

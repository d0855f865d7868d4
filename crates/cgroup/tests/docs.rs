//! `docs/cgroups.md` shows the driver's own table. `BERTH_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use berth_cgroup::{KNOBS, Place};

const BEGIN: &str = "<!-- table: printed by crates/cgroup/tests/docs.rs -->\n";
const END: &str = "<!-- end of table -->\n";

fn table() -> String {
    let mut text = String::from("| limit | v1 file | systemd, v1 | v2 file | systemd, v2 |\n|---|---|---|---|---|\n");
    let file = |place: Option<Place>| place.map_or_else(|| "-".to_owned(), |place| format!("`{}`", place.file));
    let property = |place: Option<Place>| match place {
        None => "-".to_owned(),
        Some(Place { property: None, .. }) => "written directly".to_owned(),
        Some(Place { property: Some(property), since: 0, .. }) => property.to_owned(),
        Some(Place { property: Some(property), since, .. }) => format!("{property} (since {since}, before: directly)"),
    };
    for knob in KNOBS {
        let (v1, v2) = (knob.v1, knob.v2);
        writeln!(text, "| {} | {} | {} | {} | {} |", knob.limit, file(v1), property(v1), file(v2), property(v2))
            .expect("a String takes everything");
    }
    text
}

#[test]
fn the_table_of_the_docs_is_the_codes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cgroups.md");
    let docs = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = docs.split_once(BEGIN).expect("the table's begin");
    let (shown, after) = rest.split_once(END).expect("the table's end");
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(shown, table(), "run it with BERTH_BLESS=1");
}

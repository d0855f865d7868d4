//! `config.json` to plan: whatever stands in it, there is an answer, and the same one twice.

use berth_runtime::{Rootfs, plan};

pub(crate) fn check(json: &[u8]) {
    let Ok(parsed) = berth_oci::document::spec(json) else { return };
    match (plan(&parsed.document, &Rootfs::Bundle), plan(&parsed.document, &Rootfs::Bundle)) {
        (Ok(first), Ok(second)) => {
            assert_eq!(first, second);
            assert_eq!(first.last().map(|step| step.name.as_str()), Some("execute"));
        }
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
        _ => panic!("planned once and refused once"),
    }
}

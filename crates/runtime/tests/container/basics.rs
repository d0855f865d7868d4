//! A program runs, prints and exits.

use crate::support::Bundle;

pub(crate) fn runs_a_program() {
    assert_eq!(Bundle::new().sh("echo hello $$; exit 7").run(), (7, "hello 1\n".to_owned()));
}

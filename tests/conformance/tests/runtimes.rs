//! Every case of the suite for Debian's runc and for runb, or the binary that `BERTH_CONFORMANCE_RUNTIME` names in its place.

use berth_conformance::{Case, Runtime, cases};

fn run(runtime: &Runtime, case: Case) {
    if let Err(reason) = case(runtime) {
        println!("does not apply: {reason}");
    }
}

macro_rules! every_runtime {
    ($($module:ident::$case:ident,)*) => {
        mod runc {
            use super::*;
            $(#[test] fn $case() { run(&Runtime::runc(), cases::$module::$case) })*
        }
        mod runb {
            use super::*;
            $(#[test] fn $case() { run(&Runtime::tested(), cases::$module::$case) })*
        }
    };
}

berth_conformance::for_each_case!(every_runtime);

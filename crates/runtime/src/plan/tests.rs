use berth_oci::runtime::Spec;
use serde_json::{Value, json};

use super::*;

const FULL: &str = include_str!("../../tests/data/full.json");

fn plan_of(value: &Value, tuning: &Tuning) -> Result<Plan, RuntimeError> {
    let spec: Spec = berth_oci::document::spec(value.to_string().as_bytes()).expect("a spec").document;
    let bundle = std::path::Path::new("/bundle");
    plan_create(&PlanInput {
        spec: &spec,
        id: "c",
        bundle,
        rootfs: &Rootfs::Bundle,
        tuning,
        has_seccomp_program: false,
    })
}

fn full() -> Value {
    serde_json::from_str(FULL).unwrap()
}

fn text(plan: &Plan) -> String {
    let line = |step: &Step| format!("{:?} {} [{}] {}\n", step.stage, step.action.name(), step.object, step.reason);
    plan.steps.iter().map(line).collect()
}

#[track_caller]
fn check_golden(plan: &Plan, golden: &str) {
    let found = text(plan);
    assert_eq!(found, golden, "the plan is:\n{found}");
}

#[test]
fn golden_the_full_document() {
    let plan = plan_of(&full(), &Tuning::default()).unwrap();
    check_golden(&plan, include_str!("../../tests/data/full.plan"));
    assert_eq!(plan.warnings, Vec::<String>::new());
}

/// The shortest container there is.
#[test]
fn golden_the_smallest_document() {
    let spec = json!({
        "ociVersion": "1.0.0", "root": {"path": "rootfs"},
        "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "mount"}]},
    });
    let plan = plan_of(&spec, &Tuning::default()).unwrap();
    check_golden(&plan, include_str!("../../tests/data/smallest.plan"));
}

/// An added process that has everything a process can have.
#[test]
fn golden_an_exec() {
    let spec: Spec = berth_oci::document::spec(FULL.as_bytes()).unwrap().document;
    let process = spec.process().clone().unwrap();
    let namespaces =
        Namespaces::of_spec(spec.linux().as_ref().unwrap().namespaces().as_deref().unwrap_or_default()).unwrap();
    let inherited = crate::process::Inherited::default();
    let annotations = std::collections::HashMap::new();
    let input = ExecInput {
        id: "c",
        process: &process,
        namespaces: &namespaces,
        has_seccomp: true,
        annotations: &annotations,
        inherited: &inherited,
    };
    check_golden(&plan_exec(&input).unwrap(), include_str!("../../tests/data/exec.plan"));
}

/// Labels: asked of the host before anything is made; the keyring gets the SELinux one, and whatever is mounted besides the spec's file
/// systems the mount label; the program's are written before the rights to do so are given up. Of a host that the keyring stays of, neither.
#[test]
fn labels_are_where_the_modules_look() {
    let plan = plan_of(&full(), &Tuning::default()).unwrap();
    let keyrings = |plan: &Plan| -> Vec<Keyring> {
        let of_step = |step: &Step| match &step.action {
            Action::JoinKeyring(keyring) => Some(keyring.clone()),
            _ => None,
        };
        plan.steps.iter().filter_map(of_step).collect()
    };
    let label = Some(Label::SeLinux("u:r:t:s0".to_owned()));
    assert_eq!(keyrings(&plan), [Keyring { label, is_new: true }]);
    assert_eq!(plan.mount_label, full()["linux"]["mountLabel"].as_str().map(str::to_owned));
    assert!(plan.mount_label.is_some());
    let contexts = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Mount(mount) => match &mount.source {
            MountSource::Filesystem { fstype, .. } => Some((fstype.as_str(), mount.options.value("context").is_some())),
            _ => None,
        },
        _ => None,
    });
    let contexts: Vec<(&str, bool)> = contexts.collect();
    for (fstype, is_labelled) in contexts {
        assert_eq!(is_labelled, !["proc", "sysfs", "mqueue"].contains(&fstype), "{fstype}");
    }
    let keeps = plan_of(&full(), &Tuning { keep_keyring: true, ..Tuning::default() }).unwrap();
    assert!(keyrings(&keeps).is_empty() && keeps.inherited.keeps_keyring);
    let mut profile_only = full();
    profile_only["process"]["selinuxLabel"] = json!("");
    let plan = plan_of(&profile_only, &Tuning::default()).unwrap();
    assert_eq!(keyrings(&plan), [Keyring { label: None, is_new: true }]);
}

/// What the order is for, whatever else is in the list.
#[test]
fn privileges_go_last_and_mounts_come_before_the_pivot() {
    for no_new_privileges in [false, true] {
        let mut spec = full();
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let plan = plan_of(&spec, &Tuning::default()).unwrap();
        let at = |name: &str| plan.steps.iter().position(|step| step.action.name() == name).expect(name);
        let last = |name: &str| plan.steps.iter().rposition(|step| step.action.name() == name).expect(name);
        assert!(at("enter-cgroup") < at("unshare-cgroup-namespace"));
        assert!(last("mount") < at("mask") && last("mask") < at("enter-rootfs"));
        assert!(at("close-descriptors") < at("load-seccomp") && at("set-user") < at("set-capabilities"));
        // A startContainer hook may do what the program may.
        assert!(
            last("run-container-hooks") > at("set-capabilities") && last("run-container-hooks") > at("load-seccomp")
        );
        assert_eq!(at("load-seccomp") > at("set-capabilities"), no_new_privileges);
        assert!(at("apply-label") < at("set-user"));
        assert_eq!(at("execute"), plan.steps.len() - 1);
        assert!(plan.steps.windows(2).all(|pair| pair[0].stage <= pair[1].stage));
    }
}

struct Random(u64);

impl Random {
    /// xorshift64*
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % below.max(1)
    }
}

fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(key, member)| pointers(member, &format!("{path}/{}", key.replace('/', "~1")), found));
        }
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(index, entry)| pointers(entry, &format!("{path}/{index}"), found));
        }
        _ => {}
    }
}

fn strange(random: &mut Random) -> Value {
    let texts = ["", "/", "..", "../../etc", "/proc/self/fd/7", "a\u{0}b", "\n", "0", "-1", "CAP_NONE", "rbind", "1.0"];
    match random.next(8) {
        0 => json!(texts[random.next(texts.len())]),
        1 => json!(null),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(i64::MIN),
        5 => json!([]),
        6 => json!({}),
        _ => json!("x".repeat(random.next(5000))),
    }
}

/// Property: whatever stands in a document, planning answers, and answers the same again; a plan that comes out is whole.
#[test]
fn strange_documents_are_planned_or_refused() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut planned, mut refused, mut unread) = (0, 0, 0);
    let mut all = Vec::new();
    pointers(&full(), "", &mut all);
    for round in 0..1500 {
        let mut value = full();
        for _ in 0..1 + random.next(3) {
            let pointer = &all[1 + random.next(all.len() - 1)];
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let replacement = strange(&mut random);
            match value.pointer_mut(parent) {
                Some(Value::Object(members)) if random.next(3) == 0 => drop(members.remove(key)),
                Some(Value::Object(members)) => drop(members.insert(key.replace("~1", "/"), replacement)),
                Some(Value::Array(entries)) => match key.parse::<usize>() {
                    Ok(index) if index < entries.len() && random.next(2) == 0 => entries.push(entries[index].clone()),
                    Ok(index) if index < entries.len() => entries[index] = replacement,
                    _ => {}
                },
                _ => {}
            }
        }
        let Ok(parsed) = berth_oci::document::spec(value.to_string().as_bytes()) else {
            unread += 1;
            continue;
        };
        let tuning = Tuning::default();
        let bundle = std::path::Path::new("/bundle");
        let input = PlanInput {
            spec: &parsed.document,
            id: "c",
            bundle,
            rootfs: &Rootfs::Bundle,
            tuning: &tuning,
            has_seccomp_program: false,
        };
        match (plan_create(&input), plan_create(&input)) {
            (Ok(first), Ok(second)) => {
                assert_eq!(first.steps, second.steps, "round {round}");
                assert_eq!(first.steps.last().map(|step| step.action.name()), Some(EXECUTE));
                assert!(first.steps.windows(2).all(|pair| pair[0].stage <= pair[1].stage));
                planned += 1;
            }
            (Err(first), Err(second)) => {
                assert_eq!(first.to_string(), second.to_string(), "round {round}");
                refused += 1;
            }
            (first, second) => panic!("round {round}: {:?} and {:?}", first.is_ok(), second.is_ok()),
        }
    }
    assert!(planned > 100 && refused > 100 && unread > 100, "{planned} planned, {refused} refused, {unread} not read");
}

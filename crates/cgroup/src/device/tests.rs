use super::*;
use berth_types::Classify;

fn rule(text: &str) -> DeviceRule {
    match text.split_once(' ').expect("verb") {
        ("allow", rest) => rest.parse().expect("rule"),
        ("deny", rest) => DeviceRule { allow: false, ..rest.parse().expect("rule") },
        _ => panic!("{text}"),
    }
}

fn normal(rules: &[&str]) -> Result<(bool, Vec<String>), String> {
    let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
    DeviceFilter::from_rules(&rules)
        .map(|filter| (filter.default_allow, filter.exceptions.iter().map(ToString::to_string).collect()))
        .map_err(|error| error.to_string())
}

#[test]
fn rules_parse_and_print_as_the_kernel_writes_them() {
    for text in ["c 1:3 rwm", "b 8:* rw", "a *:* rwm", "c *:* m"] {
        assert_eq!(text.parse::<DeviceRule>().unwrap().to_string(), text);
    }
    for text in
        ["", "c", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 q", "c -1:3 r", "c +1:3 r", "c 1:3 rwm x", "c 1:99999999999 r"]
    {
        let error = text.parse::<DeviceRule>().unwrap_err();
        assert_eq!(error.class(), berth_types::ErrorClass::InvalidArgument, "{text}");
    }
}

#[test]
fn accesses_of_one_device_add_up_and_the_last_word_counts() {
    let cases: [(&[&str], bool, &[&str]); 8] = [
        (&[], false, &[]),
        (&["deny a *:* rwm", "allow c 1:3 r", "allow c 1:3 w"], false, &["c 1:3 rw"]),
        (&["deny a *:* rwm", "allow c 1:3 rwm", "deny c 1:3 w"], false, &["c 1:3 rm"]),
        (&["deny a *:* rwm", "allow c 1:3 r", "deny c *:* rwm"], false, &[]),
        (&["allow c 1:3 r", "allow a *:* rwm"], true, &[]),
        (&["allow a *:* rwm", "deny b 8:0 rw", "allow b 8:0 r"], true, &["b 8:0 w"]),
        (&["deny a *:* rwm", "allow a *:* m"], false, &["c *:* m", "b *:* m"]),
        (&["deny a *:* rwm", "allow c *:* m", "deny c 1:3 rw"], false, &["c *:* m"]),
    ];
    for (rules, default, exceptions) in cases {
        let expected = (default, exceptions.iter().map(ToString::to_string).collect());
        assert_eq!(normal(rules), Ok(expected), "{rules:?}");
    }
}

#[test]
fn a_hole_in_a_wildcard_is_refused_by_name() {
    let error = normal(&["deny a *:* rwm", "allow c *:* rwm", "deny c 1:3 w"]).unwrap_err();
    assert_eq!(
        error,
        "devices: deny c 1:3 w is not allowed, it would cut a hole into the earlier rule c *:* rwm; \
         list the devices one by one"
    );
}

/// Runs a device program the way the kernel does.
fn run(program: &[BpfInstructionForTest], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0_u32; 6];
    let mut at = 0_usize;
    for _ in 0..10_000 {
        let i = program[at];
        let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        at += 1;
        let jump = match i.code {
            0x61 => {
                registers[to] = context[usize::try_from(i.offset).unwrap() / 4];
                false
            }
            0xbc => {
                registers[to] = registers[from];
                false
            }
            0xb4 => {
                registers[to] = i.immediate.cast_unsigned();
                false
            }
            0x54 => {
                registers[to] &= i.immediate.cast_unsigned();
                false
            }
            0x74 => {
                registers[to] >>= i.immediate;
                false
            }
            0x56 => registers[to] != i.immediate.cast_unsigned(),
            0x16 => registers[to] == i.immediate.cast_unsigned(),
            0x5e => registers[to] != registers[from],
            0x95 => return registers[0] == 1,
            code => panic!("code {code:#x}"),
        };
        if jump {
            at += usize::try_from(i.offset).unwrap();
        }
    }
    panic!("no exit");
}

type BpfInstructionForTest = berth_sys::bpf::BpfInstruction;

/// What the v1 kernel code answers for a filter in normal form.
fn judge(filter: &DeviceFilter, kind: DeviceKind, access: Access, major: u32, minor: u32) -> bool {
    let asked = DeviceRule { allow: true, kind, major: Some(major), minor: Some(minor), access };
    let hit = filter.exceptions.iter().any(|exception| {
        exception.covers(&asked)
            && if filter.default_allow { exception.access.overlaps(access) } else { exception.access.contains(access) }
    });
    hit != filter.default_allow
}

#[test]
fn the_program_answers_as_the_rules_do() {
    let lists: [&[&str]; 4] = [
        &["deny a *:* rwm", "allow c 1:3 rwm", "allow c 136:* rw", "allow b 8:1 r", "allow c *:* m"],
        &["allow a *:* rwm", "deny b 8:0 w", "deny c 10:* rwm", "deny c *:7 m"],
        &["allow a *:* rwm"],
        &["deny a *:* rwm"],
    ];
    for list in lists {
        let filter = DeviceFilter::from_rules(&list.iter().map(|text| rule(text)).collect::<Vec<_>>()).unwrap();
        let program = program(&filter);
        for (kind, number) in [(DeviceKind::Block, 1), (DeviceKind::Char, 2)] {
            for bits in 1..=7_u8 {
                for (major, minor) in [(1, 3), (1, 4), (136, 0), (136, 9), (8, 0), (8, 1), (10, 1), (3, 7)] {
                    assert_eq!(
                        run(&program, number, u32::from(bits), major, minor),
                        judge(&filter, kind, Access(bits), major, minor),
                        "{list:?} {kind:?} {bits} {major}:{minor}"
                    );
                }
            }
        }
    }
}

/// S-053: the devices a container has without asking.
#[test]
fn s053_defaults_are_in_normal_form() {
    let filter = DeviceFilter::from_rules(&DeviceRule::container_defaults()).unwrap();
    let exceptions: Vec<_> = filter.exceptions.iter().map(ToString::to_string).collect();
    assert!(!filter.default_allow);
    assert_eq!(
        exceptions,
        [
            "c *:* m",
            "b *:* m",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:2 rwm",
            "c 136:* rwm"
        ]
    );
}

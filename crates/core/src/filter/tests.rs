use super::*;

struct Object(&'static [(&'static str, &'static str)]);

impl Fields for Object {
    fn field(&self, path: &[&str]) -> Option<String> {
        let name = path.join(".");
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }
}

const WEB: Object = Object(&[("id", "web"), ("labels.very complex label==something", "x"), ("labels.foo", "bar,baz")]);

fn matches(filters: &[&str]) -> bool {
    Filters::parse(filters).unwrap().matches(&WEB)
}

/// S-117: the language as containerd's documentation describes it.
#[test]
fn s117_selectors() {
    for (filters, expect) in [
        (&[][..], true),
        (&[""], true),
        (&["id"], true),
        (&["nothing"], false),
        (&["id==web"], true),
        (&["id == web"], true),
        (&["id==\"web\""], true),
        (&["id!=web"], false),
        (&["nothing!=x"], true),
        (&["id~=^w.b$"], true),
        (&["id~=/e/"], true),
        (&["id~=|^e|"], false),
        (&["nothing~=.*"], false),
        (&["id==web,labels.foo"], true),
        (&["id==web,labels.bar"], false),
        (&["id==db", "labels.foo"], true),
        (&["labels.\"very complex label==something\"==x"], true),
        (&["labels.foo==\"bar,baz\""], true),
        (&["labels.foo==bar"], false),
        (&["id==\"w\\x65b\""], true),
    ] {
        assert_eq!(matches(filters), expect, "{filters:?}");
    }
}

#[test]
fn refusals_name_the_place() {
    for (filter, position) in [
        ("id=web", 2),
        ("id==", 4),
        ("==web", 0),
        ("id,", 3),
        ("id.==x", 3),
        ("id==\"web", 4),
        ("id==/web/", 4),
        ("id~=(", 5),
        ("id==web x", 9),
        ("id ? x", 3),
    ] {
        let error = Filters::parse(&[filter]).unwrap_err();
        assert_eq!((error.position, error.class()), (position, ErrorClass::InvalidArgument), "{filter}: {error}");
    }
}

use serde_json::json;

use super::*;

fn apply(text: &str, value: &Value) -> Result<String, String> {
    Template::parse(text)
        .and_then(|template| template.render(&Data { value, labels: None }))
        .map_err(|failure| failure.message)
}

#[track_caller]
fn check(text: &str, expect: &str) {
    let data = json!({
        "Id": "abc", "Name": "/web", "Empty": "", "Count": 3, "Ratio": 1.5, "Nothing": null, "Yes": true,
        "State": {"Running": true, "Pid": 42},
        "List": ["a", "b", "c"],
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": null},
        "Labels": {"com.x": "1", "y": "z"},
    });
    assert_eq!(apply(text, &data).as_deref(), Ok(expect), "{text}");
}

#[test]
fn fields_and_printing() {
    check("plain", "plain");
    check("{{.Id}} {{.State.Pid}}", "abc 42");
    check("{{ .ID }}", "abc");
    check("{{.Nothing}} {{.List}} {{.State}} {{.Ratio}}", "<nil> [a b c] map[Pid:42 Running:true] 1.5");
    check("{{json .List}}{{json .Id}}", "[\"a\",\"b\",\"c\"]\"abc\"");
    check("{{with .State}}{{.Pid}}-{{$.Id}}{{end}}", "42-abc");
    check("a {{- .Count -}} b", "a3b");
    check("{{/* nothing */}}x{{\"}}\"}}", "x}}");
}

#[test]
fn control() {
    check("{{if .Yes}}y{{else}}n{{end}}", "y");
    check("{{if .Empty}}y{{else if eq .Count 3}}three{{else}}n{{end}}", "three");
    check("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none");
    check("{{range .List}}<{{.}}>{{end}}", "<a><b><c>");
    check("{{range $i, $x := .List}}{{$i}}{{$x}}{{end}}", "0a1b2c");
    check("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "com.x=1;y=z;");
    check("{{range .Nothing}}x{{else}}empty{{end}}", "empty");
    check("{{$x := .Id}}{{$x}}{{$x}}", "abcabc");
    check("{{with .Empty}}x{{else}}e{{end}}", "e");
    check(
        "{{range $p, $c := .Ports}}{{$p}} -> {{if $c}}{{(index $c 0).HostPort}}{{end}} {{end}}",
        "443/tcp ->  80/tcp -> 8080 ",
    );
}

#[test]
fn functions() {
    check("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080");
    check("{{index .Labels \"com.x\"}}{{index .Labels \"none\"}}", "1");
    check("{{.Name | upper | printf \"%s!\"}}", "/WEB!");
    check("{{join .List \", \"}} {{len .List}} {{title \"hello world\"}}", "a, b, c 3 Hello World");
    check("{{index (split .Name \"/\") 1}}", "web");
    check("{{printf \"%5d|%-5s|%q|%.2f|%%\" .Count .Id .Id .Ratio}}", "    3|abc  |\"abc\"|1.50|%");
    check("{{println .Id .Count}}", "abc 3\n");
    check("{{eq .Id \"x\" \"abc\"}} {{ne 1 2}} {{lt 1 2}} {{ge \"b\" \"a\"}}", "true true true true");
    check("{{and .Yes .Empty}}|{{or .Empty .Id}}|{{not .Yes}}", "|abc|false");
    check("{{truncate .Name 2}}{{pad .Id 1 1}}|", "/w abc |");
}

#[test]
fn refusals() {
    let data = json!({"A": 1, "B": {"C": 2}, "L": [1]});
    for (text, message) in [
        ("{{.X}}", "template: no field \"X\"; there are: A, B, L"),
        ("{{.B.D}}", "template: no field \"D\"; there are: C"),
        ("{{.A.D}}", "template: no field \"D\" in 1"),
        ("{{index .L 5}}", "template: index 5 is out of range: 1 items"),
        ("{{nope .A}}", "template: no function \"nope\""),
        ("{{.A", "template \"{{.A\": an action is not closed by }}"),
        ("{{if .A}}", "template \"{{if .A}}\": if without end"),
        ("{{end}}", "template \"{{end}}\": end without if, range or with"),
        ("{{}}", "template \"{{}}\": missing value"),
        ("{{.A | }}", "template \"{{.A | }}\": missing value"),
        ("{{$x}}", "template: undefined variable $x"),
        ("{{range .A}}{{end}}", "template: range cannot iterate over 1"),
        ("{{printf \"%s\"}}", "template: printf: more verbs than arguments"),
    ] {
        assert_eq!(apply(text, &data), Err(message.to_owned()), "{text}");
    }
    let deep = format!("{{{{{}.A{}}}}}", "(".repeat(100), ")".repeat(100));
    assert!(apply(&deep, &data).unwrap_err().contains("nested too deeply"));
}

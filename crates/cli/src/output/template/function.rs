//! The functions of a template, and how Go prints values.

use std::cmp::Ordering;

use serde_json::Value;

type Called = Result<Value, String>;

/// A value as Go's `fmt.Print` shows it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(key, item)| format!("{key}:{}", shown(item))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

/// Go's truth: not the zero value.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

pub(super) fn call(name: &str, arguments: &[Value]) -> Called {
    let text = |index: usize| argument(name, arguments, index).map(shown);
    match name {
        "json" => Ok(argument(name, arguments, 0)?.to_string().into()),
        "upper" => Ok(text(0)?.to_uppercase().into()),
        "lower" => Ok(text(0)?.to_lowercase().into()),
        "title" => Ok(title(&text(0)?).into()),
        "split" => {
            let (whole, separator) = (text(0)?, text(1)?);
            Ok(whole.split(separator.as_str()).collect::<Vec<_>>().into())
        }
        "join" => {
            let items = argument(name, arguments, 0)?.as_array().ok_or("join needs a list")?;
            Ok(items.iter().map(shown).collect::<Vec<_>>().join(&text(1)?).into())
        }
        "len" => length(argument(name, arguments, 0)?),
        "index" => index(arguments),
        "print" => Ok(print(arguments).into()),
        "println" => Ok(format!("{}\n", arguments.iter().map(shown).collect::<Vec<_>>().join(" ")).into()),
        "printf" => printf(&text(0)?, arguments.get(1..).unwrap_or_default()),
        "pad" => pad(&text(0)?, argument(name, arguments, 1)?, argument(name, arguments, 2)?),
        "truncate" => {
            let limit = count(argument(name, arguments, 1)?)?;
            Ok(text(0)?.chars().take(limit).collect::<String>().into())
        }
        "eq" => {
            let first = argument(name, arguments, 0)?;
            argument(name, arguments, 1)?;
            Ok(arguments[1..].iter().any(|other| equal(first, other)).into())
        }
        "ne" => Ok((!equal(argument(name, arguments, 0)?, argument(name, arguments, 1)?)).into()),
        "lt" => order(name, arguments, Ordering::is_lt),
        "le" => order(name, arguments, Ordering::is_le),
        "gt" => order(name, arguments, Ordering::is_gt),
        "ge" => order(name, arguments, Ordering::is_ge),
        "and" => Ok(arguments.iter().find(|value| !is_true(value)).or(arguments.last()).cloned().unwrap_or_default()),
        "or" => Ok(arguments.iter().find(|value| is_true(value)).or(arguments.last()).cloned().unwrap_or_default()),
        "not" => Ok((!is_true(argument(name, arguments, 0)?)).into()),
        _ => Err(format!("no function {name:?}")),
    }
}

fn argument<'a>(name: &str, arguments: &'a [Value], index: usize) -> Result<&'a Value, String> {
    arguments.get(index).ok_or_else(|| format!("{name} needs more than {} arguments", arguments.len()))
}

fn title(text: &str) -> String {
    let mut at_start = true;
    text.chars()
        .map(|c| {
            let out = if at_start { c.to_ascii_uppercase() } else { c };
            at_start = !c.is_alphanumeric();
            out
        })
        .collect()
}

fn length(value: &Value) -> Called {
    match value {
        Value::String(text) => Ok(text.len().into()),
        Value::Array(items) => Ok(items.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        Value::Null => Ok(0.into()),
        other => Err(format!("len of {}", shown(other))),
    }
}

/// `index value key...`; a map without the key gives an empty text, as Go's zero value.
fn index(arguments: &[Value]) -> Called {
    let (first, keys) = arguments.split_first().ok_or("index needs a value")?;
    let mut value = first.clone();
    for key in keys {
        value = match value {
            Value::Object(map) => map.get(&shown(key)).cloned().unwrap_or_else(|| "".into()),
            Value::Array(items) => {
                let at = count(key)?;
                items.get(at).cloned().ok_or_else(|| format!("index {at} is out of range: {} items", items.len()))?
            }
            Value::Null => "".into(),
            Value::String(text) if text.is_empty() => "".into(),
            other => return Err(format!("index of {}", shown(&other))),
        };
    }
    Ok(value)
}

/// Go's Print: blanks only between operands when neither is text.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in arguments.iter().enumerate() {
        if at > 0 && !value.is_string() && !arguments[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&shown(value));
    }
    out
}

fn count(value: &Value) -> Result<usize, String> {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| *number <= 1 << 20)
        .ok_or_else(|| format!("{} is not a count", shown(value)))
}

fn pad(text: &str, before: &Value, after: &Value) -> Called {
    Ok(format!("{}{text}{}", " ".repeat(count(before)?), " ".repeat(count(after)?)).into())
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
        _ => a == b,
    }
}

fn order(name: &str, arguments: &[Value], test: fn(Ordering) -> bool) -> Called {
    let (a, b) = (argument(name, arguments, 0)?, argument(name, arguments, 1)?);
    let ordering = match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => shown(a).cmp(&shown(b)),
    };
    Ok(test(ordering).into())
}

/// `%s %v %d %q %t %x %f %%` with width, precision and `-`.
fn printf(format: &str, arguments: &[Value]) -> Called {
    let mut out = String::new();
    let mut next = arguments.iter();
    let mut characters = format.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = characters.next_if(|c| matches!(c, '-' | '+' | '0'..='9' | '.' | '#')) {
            flags.push(flag);
        }
        let Some(verb) = characters.next() else { return Err("printf: % at the end".to_owned()) };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = next.next().ok_or("printf: more verbs than arguments")?;
        let text = match verb {
            's' | 'v' | 'd' | 't' => shown(value),
            'q' => format!("{:?}", shown(value)),
            'x' => value.as_i64().map_or_else(|| shown(value), |number| format!("{number:x}")),
            'f' => float(value, &flags)?,
            other => return Err(format!("printf: %{other} is not supported")),
        };
        out.push_str(&padded(&text, &flags));
    }
    Ok(out.into())
}

fn float(value: &Value, flags: &str) -> Result<String, String> {
    let number = value.as_f64().ok_or_else(|| format!("printf: {} is not a number", shown(value)))?;
    let precision = flags.split_once('.').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(6usize);
    Ok(format!("{number:.*}", precision.min(64)))
}

fn padded(text: &str, flags: &str) -> String {
    let is_left = flags.contains('-');
    let width = flags.trim_start_matches(['-', '+', '#']).split('.').next().unwrap_or_default();
    let width = width.parse::<usize>().unwrap_or(0).min(4096);
    if is_left { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

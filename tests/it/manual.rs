//! The manual's table of fixed limits against the constants in the source, so that neither changes alone.

use std::fs;
use std::path::Path;

/// Where every public constant is a limit, so that each must stand in the table.
const ALL_LISTED: [&str; 4] = [
    "core/src/protocol/limits.rs",
    "src/transport/connection.rs",
    "src/transport/server.rs",
    "src/wire/decode.rs",
];

/// One constant as the manual has it.
struct Listed {
    limit: String,
    name: String,
    file: String,
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|error| {
        panic!("{path} is named in docs/operations.md: {error}");
    })
}

fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn listed() -> Vec<Listed> {
    let manual = read("docs/operations.md");
    let section = manual.split("### Fixed limits\n").nth(1).expect("a section of fixed limits");
    let rows =
        section.lines().take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| "));
    let mut all = Vec::new();
    for row in rows.skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, limit, names, file] = cells.as_slice() else { panic!("four cells: {row}") };
        let file = code(file).pop().unwrap_or_else(|| panic!("a file: {row}"));
        let names = code(names);
        assert!(!names.is_empty(), "a constant: {row}");
        all.extend(names.into_iter().map(|name| Listed {
            limit: (*limit).to_owned(),
            name,
            file: file.clone(),
        }));
    }
    all
}

/// What stands right of the constant's `=`.
fn expression(source: &str, name: &str) -> Option<String> {
    let at = source.find(&format!("const {name}: "))?;
    let rest = &source[at..];
    let end = rest.find(';')?;
    Some(rest[..end].split_once('=')?.1.trim().to_owned())
}

/// A product of numbers, or a power of two.
fn product(text: &str) -> Option<u64> {
    if let Some(exponent) = text.strip_prefix("1 << ") {
        return exponent.parse().ok().map(|exponent: u32| 1 << exponent);
    }
    text.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().ok()).product()
}

/// Every way in which the manual may write the value.
fn spellings(source: &str, expression: &str) -> Vec<String> {
    if let Some((unit, number)) =
        expression.strip_prefix("Duration::from_").and_then(|rest| rest.trim_end_matches(')').split_once('('))
    {
        let millis = match unit {
            "millis" => 1,
            "secs" => 1_000,
            "mins" => 60_000,
            "hours" => 3_600_000,
            _ => return Vec::new(),
        };
        return product(number).map(|number| spans(number * millis)).unwrap_or_default();
    }
    let number = expression
        .strip_prefix("NonZeroUsize::new(")
        .map_or(expression, |rest| rest.split_once(')').map_or(rest, |(number, _)| number));
    match product(number) {
        Some(number) => numbers(number),
        None if expression == "DEAD_AFTER" => spellings("", "Duration::from_mins(1)"),
        // One constant may stand for another one of the same file.
        None => self::expression(source, expression).map(|other| spellings("", &other)).unwrap_or_default(),
    }
}

fn spans(millis: u64) -> Vec<String> {
    let units = [(1, "ms"), (1_000, "s"), (60_000, "min"), (3_600_000, "h"), (86_400_000, "days")];
    let whole = units.into_iter().filter(|(unit, _)| millis.is_multiple_of(*unit));
    let mut spans: Vec<_> = whole.map(|(unit, name)| format!("{} {name}", millis / unit)).collect();
    if millis == 60_000 {
        spans.push("a minute".to_owned());
    }
    spans
}

fn numbers(number: u64) -> Vec<String> {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let mut all = vec![grouped];
    if number == 1 << 32 {
        all.push("2³²".to_owned());
    }
    for (unit, name) in [(1 << 10, "KiB"), (1 << 20, "MiB"), (1_u64 << 40, "TiB")] {
        if number.is_multiple_of(unit) {
            all.push(format!("{} {name}", number / unit));
        }
    }
    // A constant of milliseconds is a span, too.
    all.extend(spans(number));
    all
}

/// Whether the text contains this, not as a part of a longer number or word.
fn says(text: &str, what: &str) -> bool {
    let part_of_one = |next: char| next.is_alphanumeric() || next == ',';
    text.match_indices(what).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + what.len()..].trim_start_matches(',').chars().next();
        !before.is_some_and(part_of_one) && !after.is_some_and(char::is_alphanumeric)
    })
}

#[test]
fn every_fixed_limit_of_the_manual_is_a_constant_with_that_value() {
    let all = listed();
    assert!(all.len() > 60, "{} constants were found", all.len());
    for Listed { limit, name, file } in all {
        let source = read(&file);
        let expression = expression(&source, &name)
            .unwrap_or_else(|| panic!("docs/operations.md names {name} in {file}, which is not there"));
        let spellings = spellings(&source, &expression);
        let fits = spellings.iter().any(|spelling| says(&limit, spelling));
        assert!(fits, "{file}: {name} is {expression}, one of {spellings:?}, but the manual says {limit:?}");
    }
}

#[test]
fn every_limit_on_connections_and_messages_stands_in_the_manual() {
    let all = listed();
    for file in ALL_LISTED {
        let source = read(file);
        let names = source.split("pub const ").skip(1).filter_map(|rest| rest.split_once(": "));
        for (name, _) in names.filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')) {
            let is_listed = all.iter().any(|listed| listed.name == name && listed.file == file);
            assert!(is_listed, "{file}: {name} does not stand under \"Fixed limits\" in docs/operations.md");
        }
    }
}

#[test]
fn a_wrong_value_would_be_noticed() {
    let source = "const A: usize = 64 * 1024;\npub const B: Duration = Duration::from_mins(1);\n";
    let spelt = |name| spellings(source, &expression(source, name).unwrap());
    assert!(
        says("64 KiB in all", &spelt("A")[1]) && !says("164 KiB", "64 KiB") && !says("64 KiBs", "64 KiB")
    );
    assert_eq!(spelt("B"), ["60000 ms", "60 s", "1 min", "a minute"]);
    assert_eq!(numbers(20_000)[0], "20,000");
    assert!(!says("20,000", "20") && !says("1,000", "000") && says("64, of them 8", "64"));
}

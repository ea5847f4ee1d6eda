//! No statement of the store walks a whole table that grows with operations: every SQL text in its sources is shown to
//! the query planner.

use std::path::Path;

use super::support::Place;

/// Tables that grow with operations, and what the sources call them.
const LARGE: [(&str, &str); 9] = [
    ("operations", "operations"),
    ("operations AS o", "o"),
    ("ids", "ids"),
    ("ids AS i", "i"),
    ("flows", "flows"),
    ("tombstones", "tombstones"),
    ("checkpoints", "checkpoints"),
    ("parked", "parked"),
    ("parked AS p", "p"),
];

/// An index that holds nothing but what is asked for; walking it is no waste.
const EXACT: &str = "USING INDEX own_unfinished";

/// Statements known to stand in the sources; fewer mean that this test no longer finds them.
const AT_LEAST: usize = 80;

#[tokio::test]
async fn no_statement_walks_a_table_that_grows_with_operations() {
    let place = Place::new(0).await;
    let connection = rusqlite::Connection::open(place.path()).unwrap();
    let mut seen = 0;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite");
    for entry in std::fs::read_dir(sources).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        for sql in statements(shipped) {
            seen += 1;
            for step in plan(&connection, &sql) {
                let walks = |(table, name): &(&str, &str)| {
                    let walked = step.split(' ').take(2).eq(["SCAN", name]);
                    walked && sql.contains(&format!(" {table}"))
                };
                assert!(step.ends_with(EXACT) || !LARGE.iter().any(walks), "{step}\n{sql}");
            }
        }
    }
    assert!(seen >= AT_LEAST, "only {seen} statements found");
}

fn plan(connection: &rusqlite::Connection, sql: &str) -> Vec<String> {
    let explain = format!("EXPLAIN QUERY PLAN {sql}");
    let mut statement = connection.prepare(&explain).expect(sql);
    let steps = statement.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>();
    steps.unwrap()
}

/// The SQL texts of a source file; the columns of `concat!` are put in, texts with placeholders are left out.
fn statements(source: &str) -> Vec<String> {
    let source = source.replace("op_columns!(),", "\"*\",").replace("peer_columns!(),", "\"*\",");
    let mut found = Vec::new();
    let mut joined: Option<String> = None;
    for (code, literal) in literals(&source) {
        if code.contains("concat!(") {
            found.extend(joined.take());
            joined = Some(String::new());
        } else if code.contains(')') {
            found.extend(joined.take());
        }
        match &mut joined {
            Some(joined) => joined.push_str(&literal),
            None => found.push(literal),
        }
    }
    found.extend(joined);
    let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE "];
    found.retain(|text| verbs.iter().any(|verb| text.trim_start().starts_with(verb)) && !text.contains("{}"));
    found
}

/// String literals, each with the code before it; comments hold none that look like SQL.
fn literals(source: &str) -> Vec<(&str, String)> {
    let parts: Vec<&str> = source.split('"').collect();
    parts.chunks_exact(2).map(|pair| (pair[0], pair[1].to_owned())).collect()
}

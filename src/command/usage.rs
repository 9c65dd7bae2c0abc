//! `tollgate usage`: what has become of the usage, and the decision on a record in doubt.

use std::path::Path;

use serde_json::Value;

use crate::command::{complain, misconfigured};
use crate::config::settings::Sources;
use crate::config::state_dir;
use crate::control;
use crate::exit::Exit;

/// How records are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// A JSON array.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// The columns of table and CSV, by their names in JSON.
const COLUMNS: [&str; 13] = [
    "id",
    "state",
    "dimension",
    "hour",
    "quantity",
    "attempts",
    "timestamp",
    "identity",
    "aws_record_id",
    "problem",
    "customer_identifier",
    "customer_aws_account_id",
    "license_arn",
];
/// The last columns: a table leaves them out where no record is a customer's.
const CUSTOMER_COLUMNS: usize = 3;

/// Lists every record.
pub fn usage(sources: &Sources, format: Format) -> Exit {
    with_sidecar(sources, |state_dir| {
        let records = ask(state_dir, "GET", "/usage")?;
        print(&records, format);
        Ok(())
    })
}

/// Decides a record in doubt.
pub fn resolve(sources: &Sources, id: &str, delivered: bool) -> Exit {
    with_sidecar(sources, |state_dir| {
        let decision = if delivered {
            "delivered"
        } else {
            "not-delivered"
        };
        ask(state_dir, "POST", &format!("/usage/{id}/{decision}"))?;
        println!("record {id}: {decision}");
        Ok(())
    })
}

fn with_sidecar(
    sources: &Sources,
    action: impl FnOnce(&Path) -> Result<(), (Exit, String)>,
) -> Exit {
    let state_dir = match state_dir(sources) {
        Ok(state_dir) => state_dir,
        Err(errors) => return misconfigured(&errors),
    };
    match action(&state_dir) {
        Ok(()) => Exit::Success,
        Err((exit, problem)) => {
            complain(&problem);
            exit
        }
    }
}

fn ask(state_dir: &Path, method: &str, path: &str) -> Result<Value, (Exit, String)> {
    let (status, body) = control::ask(state_dir, method, path).map_err(|error| {
        let socket = control::socket_path(state_dir);
        let problem = format!(
            "no sidecar answers at {}: {error}; run this in the sidecar's container, with its TOLLGATE_STATE_DIR",
            socket.display()
        );
        (Exit::Unavailable, problem)
    })?;
    if status == 200 {
        return Ok(body);
    }
    let problem = body["error"]
        .as_str()
        .unwrap_or("the sidecar can't answer")
        .to_owned();
    Err((
        if status < 500 {
            Exit::Usage
        } else {
            Exit::Internal
        },
        problem,
    ))
}

fn print(records: &Value, format: Format) {
    let rows = records.as_array().map(Vec::as_slice).unwrap_or_default();
    match format {
        Format::Json => println!("{records:#}"),
        Format::Csv => {
            println!("{}", COLUMNS.join(","));
            for row in rows {
                println!(
                    "{}",
                    COLUMNS.map(|column| csv(&text(&row[column]))).join(",")
                );
            }
        }
        Format::Table => print_table(rows),
    }
}

fn print_table(rows: &[Value]) {
    let (columns, of_customers) = COLUMNS.split_at(COLUMNS.len() - CUSTOMER_COLUMNS);
    let any = rows
        .iter()
        .any(|row| of_customers.iter().any(|column| !row[*column].is_null()));
    let columns = if any { &COLUMNS[..] } else { columns };
    let header = columns.iter().map(|column| (*column).to_owned()).collect();
    let cells = |row: &Value| columns.iter().map(|column| text(&row[*column])).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header)
        .chain(rows.iter().map(cells))
        .collect();
    let mut widths = vec![0; columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in &lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// RFC 4180; a leading `=`, `+`, `-` or `@` is kept from being a formula in a spreadsheet.
fn csv(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@']);
    let cell = if formula {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_csv_needs_it() {
        for (cell, written) in [
            ("a", "a"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("=1+1", "'=1+1"),
            ("", ""),
        ] {
            assert_eq!(csv(cell), written);
        }
    }
}

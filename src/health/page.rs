//! The page for people: what the status says, in one glance.

use std::fmt::Write as _;

use crate::entitlement::status::Status;
use crate::ledger::Summary;

/// The page as HTML. No script, nothing from elsewhere.
pub(super) fn render(status: &Status, unready: Option<&str>, summary: Option<&Summary>) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a string can't fail.
            let _ = write!(rows, "<tr><th>{name}</th><td>{}</td></tr>", escape(value));
        }
    };
    row("State", status.state.as_str());
    row(
        "Ready",
        unready
            .map(|why| format!("no: {why}"))
            .as_deref()
            .unwrap_or("yes"),
    );
    row("Reason", status.reason.as_deref().unwrap_or_default());
    row("What to do", status.advice.as_deref().unwrap_or_default());
    row("Product code", &status.product_code);
    row("Check", &status.check);
    row(
        "Registered at",
        status.registered_at.as_deref().unwrap_or_default(),
    );
    row(
        "Public key replaced at",
        status.public_key_rotation_at.as_deref().unwrap_or_default(),
    );
    row("Region", &status.region);
    row("Identity", &status.identity);
    row("Platform", &status.platform);
    row("Version", &status.version);
    if let Some(summary) = summary {
        for (name, count) in [
            ("Records open", summary.open),
            ("Records on their way", summary.sealed),
            ("Records billed", summary.settled),
            ("Records rolled forward", summary.rolled_forward),
            ("Records in doubt", summary.in_doubt),
            ("Records rejected", summary.rejected),
        ] {
            row(name, &count.to_string());
        }
    }
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>tollgate: {state}</title><style>{STYLE}</style>\
        <h1>tollgate <small class=\"{state}\">{state}</small></h1><table>{rows}</table>\
        <p><a href=\"/status\">status</a> <a href=\"/readyz\">readyz</a> <a href=\"/startupz\">startupz</a> <a href=\"/livez\">livez</a></html>\n",
        state = status.state.as_str()
    )
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:50rem;padding:0 1rem;color:#1a1a1a;background:#fff}\
    h1{font-size:1.5rem}small{font-size:1rem;padding:.2rem .6rem;border-radius:1rem;background:#eee}\
    small.entitled{background:#d7f5dd;color:#11521f}small.grace{background:#fff0c2;color:#5c4400}\
    small.denied,small.unavailable{background:#ffd9d6;color:#7a120b}\
    table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600;white-space:nowrap;vertical-align:top}\
    th,td{padding:.4rem .8rem .4rem 0;border-bottom:1px solid #e4e4e4}td{overflow-wrap:anywhere}a{margin-right:1rem}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

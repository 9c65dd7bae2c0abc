//! `/metrics` in the Prometheus text format. Every figure is read when it is asked for; nothing is counted twice.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::entitlement::status::{StateName, Status};
use crate::ledger::Summary;

/// The media type of the format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

const STATES: [StateName; 5] = [
    StateName::Pending,
    StateName::Entitled,
    StateName::Grace,
    StateName::Denied,
    StateName::Unavailable,
];

/// The metrics page; `refused_calls` where callers have to sign.
pub fn render(
    status: &Status,
    ready: bool,
    summary: Option<&Summary>,
    refused_calls: Option<u64>,
) -> String {
    let mut registry = Registry::with_prefix("tollgate");
    let build = Family::<VersionLabel, Gauge>::default();
    build
        .get_or_create(&VersionLabel {
            version: env!("CARGO_PKG_VERSION"),
        })
        .set(1);
    registry.register("build", "1, with the version as a label", build);

    let entitlement = Family::<StateLabel, Gauge>::default();
    for state in STATES {
        let gauge = entitlement.get_or_create(&StateLabel {
            state: state.as_str(),
        });
        gauge.set(i64::from(state == status.state));
    }
    registry.register(
        "entitlement_state",
        "1 for the present state of the registration",
        entitlement,
    );
    gauge(
        &mut registry,
        "ready",
        "1 while /readyz answers 200",
        u64::from(ready),
    );
    if let Some(summary) = summary {
        register_summary(&mut registry, summary);
    }
    if let Some(refused_calls) = refused_calls {
        let counter = Counter::<u64>::default();
        counter.inc_by(refused_calls);
        registry.register(
            "refused_calls",
            "Calls of the metering endpoint that no known key had signed",
            counter,
        );
    }
    let mut page = String::new();
    encode(&mut page, &registry).expect("writing to a string can't fail");
    page
}

fn register_summary(registry: &mut Registry, summary: &Summary) {
    let records = Family::<StateLabel, Gauge>::default();
    for (state, count) in [
        ("open", summary.open),
        ("sealed", summary.sealed),
        ("settled", summary.settled),
        ("rolled_forward", summary.rolled_forward),
        ("in_doubt", summary.in_doubt),
        ("rejected", summary.rejected),
    ] {
        records
            .get_or_create(&StateLabel { state })
            .set(clamp(count));
    }
    registry.register("metering_records", "Metering records by state", records);
    gauge(
        registry,
        "keys_dropped",
        "Callers' keys forgotten before their ten minutes",
        summary.keys_dropped,
    );
    gauge(
        registry,
        "customers",
        "Customers that were ever named",
        summary.customers,
    );
    gauge(
        registry,
        "customers_not_subscribed",
        "Customers that AWS calls not subscribed",
        summary.customers_not_subscribed,
    );
    for (name, help, at) in [
        (
            "oldest_unsettled_timestamp_seconds",
            "Timestamp of the oldest record on its way",
            summary.oldest_unsettled_at,
        ),
        (
            "last_settled_timestamp_seconds",
            "When AWS last confirmed a record",
            summary.last_settled_at,
        ),
    ] {
        if let Some(at) = at {
            gauge(
                registry,
                name,
                help,
                u64::try_from(at.as_millis() / 1000).unwrap_or(0),
            );
        }
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(clamp(value));
    registry.register(name, help, gauge);
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

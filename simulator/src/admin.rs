//! The administration: what was called, what was billed, and what is to go wrong.
//!
//! | route | what |
//! |---|---|
//! | GET /simulator/health | 200 |
//! | GET /simulator/model | the shapes that are modelled |
//! | GET, DELETE /simulator/calls | the log of calls |
//! | GET /simulator/account | every billed record, and totals: by product and dimension, for SaaS also by customer |
//! | GET, POST, DELETE /simulator/faults | faults in force; POST takes one as JSON |
//! | GET /simulator/products | the products |
//! | PUT /simulator/products | adds or replaces one |
//! | GET, PUT /simulator/customers | the buyers of SaaS products; PUT adds or replaces one |
//! | GET, PUT /simulator/tokens | registration tokens; PUT adds or replaces one |
//! | GET /simulator/keys/PRODUCT/VERSION | a public key as SPKI PEM |
//! | PUT /simulator/callers, /simulator/tasks, /simulator/pods | adds one |
//! | PUT /simulator/clock | `{"offset_seconds": 0}`: AWS's clock against this machine's |
//! | PUT /simulator/task-metadata | `"none"`, or how the ECS agent misbehaves |

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::config::{Caller, Customer, Pod, Product, Task, Token};
use crate::fault::Fault;
use crate::model;
use crate::world::{Call, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    offset_seconds: i64,
}

/// Answers a request under /simulator/.
pub(crate) fn answer(
    world: &mut World,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Response<Bytes> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
    let result = match (method.as_str(), &segments[..]) {
        ("GET", ["health"]) => Ok(json!({"ok": true})),
        ("GET", ["model"]) => Ok(model::to_json()),
        ("GET", ["calls"]) => Ok(json!(world.calls().collect::<Vec<&Call>>())),
        ("DELETE", ["calls"]) => {
            world.clear_calls();
            Ok(Value::Null)
        }
        ("GET", ["account"]) => Ok(account(world)),
        ("GET", ["faults"]) => Ok(json!(world.faults.list())),
        ("POST", ["faults"]) => read::<Fault>(body).and_then(|fault| {
            world.faults.add(fault).map_err(|error| error.to_string())?;
            Ok(json!(world.faults.list()))
        }),
        ("DELETE", ["faults"]) => {
            world.faults.clear();
            Ok(json!([]))
        }
        ("GET", ["products"]) => Ok(world
            .product_codes()
            .iter()
            .filter_map(|code| world.product(code))
            .map(|product| json!(product))
            .collect()),
        ("PUT", ["products"]) => read::<Product>(body).and_then(|product| {
            world
                .put_product(product)
                .map_err(|error| error.to_string())?;
            Ok(Value::Null)
        }),
        ("GET", ["customers"]) => Ok(json!(world.customers.list().collect::<Vec<_>>())),
        ("PUT", ["customers"]) => read::<Customer>(body).and_then(|customer| {
            world
                .put_customer(customer)
                .map_err(|error| error.to_string())?;
            Ok(Value::Null)
        }),
        ("GET", ["tokens"]) => Ok(json!(world.customers.tokens().collect::<Vec<_>>())),
        ("PUT", ["tokens"]) => read::<Token>(body).and_then(|token| {
            world.put_token(token).map_err(|error| error.to_string())?;
            Ok(Value::Null)
        }),
        ("GET", ["keys", product @ .., version]) => {
            return public_key(world, &product.join("/"), version);
        }
        ("PUT", ["callers"]) => read::<Caller>(body)
            .map(|caller| world.put_caller(caller))
            .map(|()| Value::Null),
        ("PUT", ["tasks"]) => read::<Task>(body)
            .map(|task| world.put_task(task))
            .map(|()| Value::Null),
        ("PUT", ["pods"]) => read::<Pod>(body)
            .map(|pod| world.put_pod(pod))
            .map(|()| Value::Null),
        ("PUT", ["clock"]) => read::<Clock>(body).map(|clock| {
            world.clock_offset = SignedDuration::from_secs(clock.offset_seconds);
            json!({"now": world.now()})
        }),
        ("PUT", ["task-metadata"]) => read(body).map(|fault| {
            world.task_metadata = fault;
            Value::Null
        }),
        _ => {
            return respond(
                StatusCode::NOT_FOUND,
                &json!({"error": format!("there is no {method} {path}")}),
            );
        }
    };
    match result {
        Ok(value) => respond(StatusCode::OK, &value),
        Err(problem) => respond(StatusCode::BAD_REQUEST, &json!({"error": problem})),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn account(world: &World) -> Value {
    let totals: Vec<Value> = world
        .ledger
        .totals()
        .into_iter()
        .map(|((product_code, dimension), quantity)| {
            json!({"product_code": product_code, "dimension": dimension, "quantity": quantity})
        })
        .collect();
    json!({
        "totals": totals,
        "records": world.ledger.records().collect::<Vec<_>>(),
        "saas_totals": world.saas.totals(),
        "saas_records": world.saas.records().collect::<Vec<_>>(),
    })
}

fn public_key(world: &World, product: &str, version: &str) -> Response<Bytes> {
    let found = version
        .parse()
        .ok()
        .and_then(|version| world.public_key(product, version));
    match found {
        Some(pem) => {
            let mut response = Response::new(Bytes::copy_from_slice(pem.as_bytes()));
            response.headers_mut().insert(
                "content-type",
                HeaderValue::from_static("application/x-pem-file"),
            );
            response
        }
        None => respond(
            StatusCode::NOT_FOUND,
            &json!({"error": "there is no such product or key version"}),
        ),
    }
}

fn respond(status: StatusCode, value: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{value}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/json"));
    response
}

//! What surrounds a container: the ECS agent, the ECS credentials endpoint, STS and IMDSv2.
//!
//! | route | what |
//! |---|---|
//! | GET /ecs/v4/TASK/task | ECS task metadata version 4; `ECS_CONTAINER_METADATA_URI_V4` is `/ecs/v4/TASK` |
//! | GET /ecs/credentials/TASK | credentials of the task role; `AWS_CONTAINER_CREDENTIALS_FULL_URI` |
//! | POST / with Action=AssumeRoleWithWebIdentity | STS; `AWS_ENDPOINT_URL_STS` |
//! | PUT /latest/api/token, GET /latest/meta-data/... | IMDSv2; `AWS_EC2_METADATA_SERVICE_ENDPOINT` |

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::config::Platform;
use crate::server::is_read;
use crate::world::{Issued, TaskMetadataFault, World};

const INSTANCE_TOKEN: &str = "simulator-imds-token";
const INSTANCE_ROLE: &str = "simulator-node-role";
const HUGE_BYTES: usize = 2 * 1024 * 1024;

/// Answers whatever is neither the service nor the administration.
pub(crate) fn answer(world: &mut World, parts: &Parts, path: &str) -> Response<Bytes> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["ecs", "v4", task, "task"] if is_read(&parts.method) => task_metadata(world, task),
        ["ecs", "credentials", task] if is_read(&parts.method) => task_credentials(world, task),
        ["latest", "api", "token"] if parts.method == Method::PUT => {
            text(StatusCode::OK, INSTANCE_TOKEN)
        }
        ["latest", "meta-data", ref rest @ ..] if is_read(&parts.method) => {
            instance_metadata(world, parts, rest)
        }
        _ => text(StatusCode::NOT_FOUND, "the simulator has nothing here"),
    }
}

fn task_metadata(world: &World, task: &str) -> Response<Bytes> {
    if !world.tasks.contains_key(task) {
        return text(StatusCode::NOT_FOUND, "there is no such task");
    }
    let (arn, zone) = (world.task_arn(task), format!("{}a", world.region));
    let metadata = json!({
        "Cluster": "simulator", "TaskARN": arn, "Family": "simulator", "Revision": "1",
        "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "AvailabilityZone": zone, "LaunchType": "FARGATE",
    });
    match world.task_metadata {
        TaskMetadataFault::None => data(&metadata),
        TaskMetadataFault::BadJson => text(StatusCode::OK, "{\"TaskARN\":"),
        TaskMetadataFault::NoTaskArn => data(&json!({"Cluster": "simulator"})),
        TaskMetadataFault::WrongArn => {
            data(&json!({"TaskARN": "arn:aws:s3:::bucket", "AvailabilityZone": zone}))
        }
        TaskMetadataFault::Error => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "the agent is not well")
        }
        TaskMetadataFault::Html => text(StatusCode::OK, "<html><body>hello</body></html>"),
        TaskMetadataFault::Huge => {
            data(&json!({"TaskARN": arn, "Padding": "x".repeat(HUGE_BYTES)}))
        }
    }
}

fn task_credentials(world: &mut World, task: &str) -> Response<Bytes> {
    let Some(started_at) = world.tasks.get(task).map(|task| task.started_at) else {
        return text(StatusCode::NOT_FOUND, "there is no such task");
    };
    let issued = world.issue(world.task_arn(task), Platform::Ecs, started_at);
    data(&json!({
        "AccessKeyId": issued.access_key_id,
        "SecretAccessKey": issued.secret,
        "Token": issued.token,
        "Expiration": issued.expires_at.to_string(),
        "RoleArn": "arn:aws:iam::111122223333:role/simulator-task-role",
    }))
}

fn instance_metadata(world: &mut World, parts: &Parts, path: &[&str]) -> Response<Bytes> {
    let given = parts
        .headers
        .get("x-aws-ec2-metadata-token")
        .and_then(|token| token.to_str().ok());
    if given != Some(INSTANCE_TOKEN) {
        return text(StatusCode::UNAUTHORIZED, "IMDSv2 wants a token");
    }
    match *path {
        ["placement", "region"] => text(StatusCode::OK, &world.region),
        ["placement", "availability-zone"] => text(StatusCode::OK, &format!("{}a", world.region)),
        ["iam", "security-credentials"] => text(StatusCode::OK, INSTANCE_ROLE),
        ["iam", "security-credentials", INSTANCE_ROLE] => {
            let issued = world.issue("i-0123456789abcdef0".to_owned(), Platform::Instance, None);
            data(&json!({
                "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": world.now().to_string(),
                "AccessKeyId": issued.access_key_id,
                "SecretAccessKey": issued.secret,
                "Token": issued.token,
                "Expiration": issued.expires_at.to_string(),
            }))
        }
        _ => text(StatusCode::NOT_FOUND, "not modelled"),
    }
}

/// STS: AssumeRoleWithWebIdentity alone.
pub(crate) fn sts(world: &mut World, body: &[u8]) -> Response<Bytes> {
    let form = |wanted: &str| {
        let text = String::from_utf8_lossy(body).into_owned();
        text.split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| decode(value))
    };
    if form("Action").as_deref() != Some("AssumeRoleWithWebIdentity") {
        return sts_error(
            "InvalidAction",
            "only AssumeRoleWithWebIdentity is modelled",
        );
    }
    let (token, role) = (
        form("WebIdentityToken").unwrap_or_default(),
        form("RoleArn").unwrap_or_default(),
    );
    let Some(pod) = world
        .pods
        .iter()
        .find(|pod| pod.token == token.trim())
        .cloned()
    else {
        return sts_error(
            "InvalidIdentityToken",
            "the web identity token is not one of the simulator's pods'",
        );
    };
    if pod.role_arn != role {
        return sts_error("AccessDenied", "the pod may not assume this role");
    }
    let issued = world.issue(pod.identity, Platform::Eks, pod.started_at);
    xml(StatusCode::OK, &assumed(&issued, &role))
}

fn assumed(issued: &Issued, role: &str) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
         <Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
         <Expiration>{}</Expiration></Credentials><AssumedRoleUser><Arn>{role}</Arn><AssumedRoleId>SIMULATOR:session</AssumedRoleId>\
         </AssumedRoleUser></AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>simulated</RequestId></ResponseMetadata>\
         </AssumeRoleWithWebIdentityResponse>",
        issued.access_key_id,
        issued.secret,
        issued.token,
        issued.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
}

fn sts_error(code: &str, message: &str) -> Response<Bytes> {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>simulated</RequestId></ErrorResponse>"
    );
    xml(StatusCode::BAD_REQUEST, &body)
}

/// Form encoding: `+` is a space, `%41` is `A`.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = || -> Option<u8> {
            let mut ahead = rest.clone();
            let digits = [ahead.next()?, ahead.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()
        };
        match (byte, escaped()) {
            (b'%', Some(decoded)) => {
                rest.next();
                rest.next();
                bytes.push(decoded);
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(status: StatusCode, text: &str) -> Response<Bytes> {
    respond(status, "text/plain", text)
}

fn data(value: &Value) -> Response<Bytes> {
    respond(StatusCode::OK, "application/json", &value.to_string())
}

fn xml(status: StatusCode, text: &str) -> Response<Bytes> {
    respond(status, "text/xml", text)
}

fn respond(status: StatusCode, kind: &'static str, text: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(text.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(kind));
    // The Rust SDK wants to know how long an IMDS token lives.
    headers.insert(
        "x-aws-ec2-metadata-token-ttl-seconds",
        HeaderValue::from_static("21600"),
    );
    response
}

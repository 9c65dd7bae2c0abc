//! The ECS task metadata endpoint, version 4 (Amazon ECS developer guide): `GET $ECS_CONTAINER_METADATA_URI_V4/task`.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// The task as the ECS agent describes it.
#[derive(Debug)]
pub(super) struct TaskMetadata {
    pub(super) arn: String,
    pub(super) region: String,
}

/// Why the ECS agent's answer can't be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "ECS task metadata at {uri}/task: {problem}; ECS_CONTAINER_METADATA_URI_V4 is set by the ECS agent: outside ECS, unset it"
)]
pub struct TaskMetadataError {
    uri: String,
    problem: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "TaskARN")]
    arn: Option<String>,
    #[serde(rename = "AvailabilityZone")]
    availability_zone: Option<String>,
}

/// A failed try that may go better the next time, or not.
enum Failure {
    Passing(String),
    Lasting(String),
}

const TRIES_MAX: u32 = 4;
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(250);
const BODY_BYTES_MAX: usize = 1024 * 1024;
const ARN_CHARS_MAX: usize = 512;

impl TaskMetadata {
    /// Asks the agent at `uri`; an agent that does not answer is asked a few times.
    pub(super) async fn fetch(uri: &str) -> Result<Self, TaskMetadataError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let attempt = tokio::time::timeout(TRY_TIMEOUT, get(uri)).await;
            let failure = match attempt {
                Ok(Ok(body)) => match parse(&body) {
                    Ok(task) => return Ok(task),
                    Err(problem) => Failure::Lasting(problem),
                },
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Passing(format!("no answer within {TRY_TIMEOUT:?}")),
            };
            match failure {
                Failure::Passing(problem) if tries < TRIES_MAX => {
                    tracing::warn!(
                        problem,
                        tries,
                        "the ECS agent does not describe the task yet"
                    );
                    tokio::time::sleep(PAUSE * tries).await;
                }
                Failure::Passing(problem) | Failure::Lasting(problem) => {
                    return Err(TaskMetadataError {
                        uri: uri.to_owned(),
                        problem,
                    });
                }
            }
        }
    }
}

async fn get(uri: &str) -> Result<Bytes, Failure> {
    let lasting = |problem: &str| Failure::Lasting(problem.to_owned());
    let uri: Uri = format!("{}/task", uri.trim_end_matches('/'))
        .parse()
        .map_err(|_| lasting("it is no URI"))?;
    let authority = uri
        .authority()
        .filter(|_| uri.scheme_str() == Some("http"))
        .ok_or_else(|| lasting("it is no http:// URI"))?;
    let passing = |error: &dyn std::error::Error| Failure::Passing(error.to_string());
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| passing(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| passing(&error))?;
    let request = Request::get(uri.path())
        .header(header::HOST, authority.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Lasting(error.to_string()))?;
    // It ends with the sender; what goes wrong on it reaches the request's own result.
    tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| passing(&error))?;
    if response.status() != StatusCode::OK {
        return Err(Failure::Passing(format!(
            "it answers {}",
            response.status()
        )));
    }
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
        .collect()
        .await;
    Ok(body
        .map_err(|error| Failure::Passing(error.to_string()))?
        .to_bytes())
}

fn parse(body: &[u8]) -> Result<TaskMetadata, String> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("its answer is not the expected JSON ({error})"))?;
    let arn = answer.arn.ok_or("its answer has no TaskARN")?;
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let region = match parts[..] {
        ["arn", _, "ecs", region, _, resource]
            if resource.starts_with("task/")
                && arn.len() <= ARN_CHARS_MAX
                && arn.chars().all(|c| c.is_ascii_graphic()) =>
        {
            region.to_owned()
        }
        _ => {
            return Err(format!(
                "its TaskARN {:?} is no task ARN",
                arn.chars().take(80).collect::<String>()
            ));
        }
    };
    if super::is_region(&region) {
        return Ok(TaskMetadata { arn, region });
    }
    let zone = answer.availability_zone.unwrap_or_default();
    let region = zone
        .trim_end_matches(|c: char| c.is_ascii_lowercase())
        .to_owned();
    if super::is_region(&region) {
        Ok(TaskMetadata { arn, region })
    } else {
        Err("neither its TaskARN nor its AvailabilityZone names a region".to_owned())
    }
}

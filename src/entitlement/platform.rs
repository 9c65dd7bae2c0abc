//! Where the process runs: platform, identity and region.
//!
//! | platform | recognised by | identity | region, after AWS_REGION and AWS_DEFAULT_REGION |
//! |---|---|---|---|
//! | ECS | ECS_CONTAINER_METADATA_URI_V4 | task ARN | the task ARN's |
//! | EKS | POD_UID or KUBERNETES_SERVICE_HOST | POD_UID, else the host name | IMDSv2 |
//! | unknown | neither | host name | IMDSv2 |

mod task_metadata;

use std::collections::BTreeMap;
use std::future::Future;

use task_metadata::TaskMetadata;
pub use task_metadata::TaskMetadataError;

/// Where the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kind of orchestrator.
    pub platform: Platform,
    /// The task, pod or host: what AWS counts once an hour.
    pub identity: String,
    /// The region to ask.
    pub region: String,
}

/// The kind of orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Amazon ECS, Fargate included.
    Ecs,
    /// Kubernetes; RegisterUsage wants it to be Amazon EKS.
    Eks,
    /// Anything else.
    Unknown,
}

/// Why platform, identity or region can't be found.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The ECS agent's answer can't be used.
    #[error(transparent)]
    TaskMetadata(#[from] TaskMetadataError),
    /// Nothing names the region.
    #[error(
        "no region: neither AWS_REGION nor AWS_DEFAULT_REGION is set, and neither ECS task metadata nor IMDSv2 names one; \
         set AWS_REGION to the region that this task or pod runs in"
    )]
    NoRegion,
    /// A region that is no region.
    #[error("{origin} is {value:?}, which is no AWS region; expected one like us-east-1")]
    BadRegion {
        /// Where it comes from.
        origin: &'static str,
        /// What it says.
        value: String,
    },
    /// A pod UID that can't be one.
    #[error("POD_UID is {0:?}; expected the pod's UID from the downward API (metadata.uid)")]
    BadPodUid(String),
}

impl Platform {
    /// The name in status files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ecs => "ecs",
            Self::Eks => "eks",
            Self::Unknown => "unknown",
        }
    }

    /// The platform that `environment` shows.
    pub fn of(environment: &BTreeMap<String, String>) -> Self {
        if environment.contains_key(TASK_METADATA_URI) {
            Self::Ecs
        } else if environment.contains_key(POD_UID)
            || environment.contains_key("KUBERNETES_SERVICE_HOST")
        {
            Self::Eks
        } else {
            Self::Unknown
        }
    }
}

const TASK_METADATA_URI: &str = "ECS_CONTAINER_METADATA_URI_V4";
/// The variable with the pod's UID.
pub(super) const POD_UID: &str = "POD_UID";

/// Finds out platform, identity and region from `environment`; asks the ECS agent where there is one, and
/// `instance_metadata` for the region only where nothing else names it.
pub async fn discover<R: Future<Output = Option<String>>>(
    environment: &BTreeMap<String, String>,
    instance_metadata: impl FnOnce() -> R,
) -> Result<Host, HostError> {
    let task = task(environment).await?;
    let region = match (configured_region(environment)?, &task) {
        (Some(region), _) => region,
        (None, Some(task)) => task.region.clone(),
        (None, None) => {
            let region = instance_metadata().await.ok_or(HostError::NoRegion)?;
            checked_region("IMDSv2's placement/region", region)?
        }
    };
    if let Some(task) = task.as_ref().filter(|task| task.region != region) {
        tracing::warn!(
            region,
            task_region = task.region,
            "the configured region is not the one that the task runs in; AWS refuses RegisterUsage from another region"
        );
    }
    Ok(Host {
        platform: Platform::of(environment),
        identity: match task {
            Some(task) => task.arn,
            None => local_identity(environment)?,
        },
        region,
    })
}

/// The identity of a process in the main container, as far as it can be told without asking the network.
pub fn local_identity(environment: &BTreeMap<String, String>) -> Result<String, HostError> {
    const POD_UID_CHARS_MAX: usize = 128;
    let Some(uid) = environment.get(POD_UID) else {
        return Ok(host_name());
    };
    let plausible = !uid.is_empty()
        && uid.len() <= POD_UID_CHARS_MAX
        && uid
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
    if plausible {
        Ok(uid.clone())
    } else {
        Err(HostError::BadPodUid(uid.clone()))
    }
}

/// The ECS task's ARN, where there is an ECS agent to ask.
pub async fn task_arn(
    environment: &BTreeMap<String, String>,
) -> Result<Option<String>, TaskMetadataError> {
    Ok(task(environment).await?.map(|task| task.arn))
}

/// The host's name, as `uname -n` says it.
pub(super) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

async fn task(
    environment: &BTreeMap<String, String>,
) -> Result<Option<TaskMetadata>, TaskMetadataError> {
    match environment.get(TASK_METADATA_URI) {
        Some(uri) => TaskMetadata::fetch(uri).await.map(Some),
        None => Ok(None),
    }
}

fn configured_region(environment: &BTreeMap<String, String>) -> Result<Option<String>, HostError> {
    for origin in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        match environment.get(origin) {
            Some(value) if !value.is_empty() => {
                return checked_region(origin, value.clone()).map(Some);
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Regions become part of a host name, so nothing but what a region is made of may pass.
fn is_region(text: &str) -> bool {
    const REGION_CHARS_MAX: usize = 32;
    text.len() <= REGION_CHARS_MAX
        && text.contains('-')
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn checked_region(origin: &'static str, value: String) -> Result<String, HostError> {
    if is_region(&value) {
        Ok(value)
    } else {
        Err(HostError::BadRegion { origin, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_every_partition_are_regions() {
        for region in [
            "us-east-1",
            "ap-southeast-7",
            "us-gov-west-1",
            "cn-north-1",
            "us-iso-east-1",
            "eusc-de-east-1",
        ] {
            assert!(is_region(region), "{region}");
        }
        for text in [
            "",
            "us",
            "us-east-1a",
            "US-EAST-1",
            "evil.example/x-1",
            "us east-1",
            "-1",
        ] {
            assert!(!is_region(text), "{text:?}");
        }
    }
}

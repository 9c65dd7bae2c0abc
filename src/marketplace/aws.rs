//! The real service, through the AWS SDK for Rust. The only module that imports it (with its transport).
//!
//! The SDK's retries are off: who may repeat what, and when, is decided where the request was made durable.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::imds::region::ImdsRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_marketplacemetering::Client;
use aws_sdk_marketplacemetering::config::StalledStreamProtectionConfig;
use aws_sdk_marketplacemetering::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_marketplacemetering::primitives::DateTime;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;

pub use super::transport::CaBundleError;
use super::transport::Transport;
use super::{CallError, Marketplace, Operation, ServiceError};

/// A client of the service in one region.
#[derive(Clone, Debug)]
pub struct Aws {
    client: Client,
}

/// What makes the client: the parts of the environment that the SDK does not read by itself.
#[derive(Clone, Debug)]
pub struct Connection {
    transport: Transport,
    endpoint_override_allowed: bool,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const INSTANCE_METADATA_TIMEOUT: Duration = Duration::from_secs(4);

impl Connection {
    /// Reads AWS_CA_BUNDLE and the proxy variables from `environment`.
    pub fn new(
        environment: &BTreeMap<String, String>,
        endpoint_override_allowed: bool,
    ) -> Result<Self, CaBundleError> {
        let proxied = [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ]
        .iter()
        .any(|name| {
            environment
                .get(*name)
                .is_some_and(|value| !value.is_empty())
        });
        let ca_bundle = environment.get("AWS_CA_BUNDLE").map(String::as_str);
        Ok(Self {
            transport: Transport::new(ca_bundle, proxied)?,
            endpoint_override_allowed,
        })
    }

    /// The region that IMDSv2 names; `None` where there is no such service or it is switched off.
    pub async fn region_of_instance(&self) -> Option<String> {
        let provider = ImdsRegionProvider::builder()
            .configure(&ProviderConfig::without_region().with_http_client(self.transport.clone()))
            .build();
        let region = tokio::time::timeout(INSTANCE_METADATA_TIMEOUT, provider.region()).await;
        region
            .ok()
            .flatten()
            .map(|region| region.as_ref().to_owned())
    }

    /// A client for `region`. Credentials are found when the first call needs them.
    pub async fn client(&self, region: &str) -> Aws {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let shared = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(self.transport.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .load()
            .await;
        let mut config = aws_sdk_marketplacemetering::config::Builder::from(&shared);
        if !self.endpoint_override_allowed {
            config.set_endpoint_url(None);
        }
        Aws {
            client: Client::from_conf(config.build()),
        }
    }
}

impl Marketplace for Aws {
    async fn call(&self, operation: Operation, body: Bytes) -> Result<Bytes, CallError> {
        let answer = Answer::default();
        // The SDK wants members; what is sent is `body`, before it is signed.
        macro_rules! send {
            ($request:expr) => {
                $request
                    .customize()
                    .interceptor(answer.clone())
                    .mutate_request(move |request| {
                        request
                            .headers_mut()
                            .insert("content-length", body.len().to_string());
                        *request.body_mut() = SdkBody::from(body.clone());
                    })
                    .send()
                    .await
                    .map(drop)
                    .map_err(|error| classify(&error))
            };
        }
        let client = &self.client;
        match operation {
            Operation::RegisterUsage => {
                send!(
                    client
                        .register_usage()
                        .product_code("-")
                        .public_key_version(1)
                )
            }
            Operation::MeterUsage => send!(
                client
                    .meter_usage()
                    .product_code("-")
                    .usage_dimension("-")
                    .timestamp(DateTime::from_secs(0))
                    .client_token("-")
            ),
            Operation::BatchMeterUsage => {
                send!(
                    client
                        .batch_meter_usage()
                        .set_usage_records(Some(Vec::new()))
                )
            }
            Operation::ResolveCustomer => send!(client.resolve_customer().registration_token("-")),
        }?;
        answer
            .take()
            .ok_or_else(|| CallError::Lost("the answer has no body".to_owned()))
    }
}

/// The body of the service's answer, with members that the SDK does not know.
#[derive(Clone, Debug, Default)]
struct Answer(Arc<Mutex<Option<Bytes>>>);

impl Answer {
    fn take(&self) -> Option<Bytes> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[dyn_dispatch_hint]
impl Intercept for Answer {
    fn name(&self) -> &'static str {
        "Answer"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.lock() = context
            .response()
            .body()
            .bytes()
            .map(Bytes::copy_from_slice);
        Ok(())
    }
}

fn classify<E>(error: &SdkError<E, HttpResponse>) -> CallError
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    match error {
        SdkError::TimeoutError(_) => CallError::Lost(format!("none within {ATTEMPT_TIMEOUT:?}")),
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => not_sent(error),
        SdkError::ResponseError(context) => unusable(context.raw(), &chain(error)),
        SdkError::ServiceError(context) => match context.err().code() {
            Some(code) => service_error(
                context.raw().status().as_u16(),
                code,
                context.err().message(),
            ),
            None => unusable(context.raw(), "the answer names no error"),
        },
        _ => CallError::Lost(chain(error)),
    }
}

/// Sorts out a request that got no answer at all.
fn not_sent(error: &(dyn StdError + 'static)) -> CallError {
    let text = chain(error);
    let mut next = Some(error);
    while let Some(cause) = next {
        match cause.downcast_ref::<CredentialsError>() {
            Some(CredentialsError::CredentialsNotLoaded(_)) => {
                return CallError::NoCredentials(text);
            }
            Some(_) => {
                return CallError::NotSent(format!("no AWS credentials could be had: {text}"));
            }
            None => {}
        }
        let connect = cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        if connect {
            return CallError::NotSent(text);
        }
        next = cause.source();
    }
    CallError::Lost(text)
}

/// The error and its causes on one line; the SDK's own display adds the whole structure once more.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// An answer that is not the service's: an error page of a proxy, a broken body.
fn unusable(raw: &HttpResponse, problem: &str) -> CallError {
    let status = raw.status().as_u16();
    let kind = raw
        .headers()
        .get("content-type")
        .unwrap_or("no content type");
    let message = format!(
        "the answer (HTTP {status}, {kind}) is not the service's; look for a proxy or a wrong endpoint between here and AWS ({problem})"
    );
    if (200..300).contains(&status) {
        return CallError::Lost(message);
    }
    CallError::Failed {
        status,
        error: ServiceError {
            code: format!("HTTP {status}"),
            message,
        },
    }
}

fn service_error(status: u16, code: &str, message: Option<&str>) -> CallError {
    const THROTTLING: [&str; 5] = [
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
    ];
    let error = ServiceError {
        code: code.to_owned(),
        message: message.unwrap_or("AWS gives no message").to_owned(),
    };
    if THROTTLING.contains(&code) || status == 429 {
        CallError::Throttled(error)
    } else if status >= 500 || code == "InternalServiceErrorException" {
        CallError::Failed { status, error }
    } else {
        CallError::Refused(error)
    }
}

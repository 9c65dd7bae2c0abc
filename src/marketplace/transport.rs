//! The HTTP client under the AWS SDK.
//!
//! The SDK's own default reads neither AWS_CA_BUNDLE nor the proxy variables, takes answers of any size, and loads the
//! certificate store at start even for an endpoint without TLS. This one routes each request: plain HTTP goes out
//! directly or by the proxy, HTTPS through a client that is made when the first such request comes, and requests to
//! the host itself (loopback and link-local: credentials endpoints, IMDS) never by a proxy.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::shared::IntoShared;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use jiff::Timestamp;

use crate::clock;

/// No answer of the services that tollgate calls comes near this.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// AWS refuses signatures that are further off than this.
const CLOCK_SKEW_SECONDS_MAX: i64 = 5 * 60;

/// Routes requests as the module says. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    routes: Arc<Routes>,
}

#[derive(Debug)]
struct Routes {
    direct: SharedHttpClient,
    proxied: Option<SharedHttpClient>,
    tls: OnceLock<SharedHttpClient>,
    trust_store: tls::TrustStore,
    proxy: ProxyConfig,
}

/// Why AWS_CA_BUNDLE can't be used.
#[derive(Debug, thiserror::Error)]
#[error("AWS_CA_BUNDLE is {path:?}: {problem}; expected a PEM file with certificates")]
pub struct CaBundleError {
    path: String,
    problem: String,
}

impl Transport {
    /// `ca_bundle` replaces the system's certificates, as it does for every AWS SDK.
    pub(super) fn new(
        ca_bundle: Option<&str>,
        proxy_configured: bool,
    ) -> Result<Self, CaBundleError> {
        let trust_store = match ca_bundle.filter(|path| !path.is_empty()) {
            Some(path) => trust_store(path)?,
            None => tls::TrustStore::default(),
        };
        let proxy = if proxy_configured {
            ProxyConfig::from_env()
        } else {
            ProxyConfig::disabled()
        };
        let proxied = proxy_configured.then(|| plain_client(&proxy));
        let routes = Routes {
            direct: plain_client(&ProxyConfig::disabled()),
            proxied,
            tls: OnceLock::new(),
            trust_store,
            proxy,
        };
        Ok(Self {
            routes: Arc::new(routes),
        })
    }
}

impl Routes {
    fn client_for(&self, uri: &str) -> &SharedHttpClient {
        let uri: http::Uri = uri.parse().unwrap_or_default();
        if uri.scheme_str() == Some("https") {
            return self.tls.get_or_init(|| self.tls_client());
        }
        match &self.proxied {
            Some(proxied) if !uri.host().is_some_and(is_this_host) => proxied,
            _ => &self.direct,
        }
    }

    fn tls_client(&self) -> SharedHttpClient {
        let context = tls::TlsContext::builder()
            .with_trust_store(self.trust_store.clone())
            .build()
            .expect("a context made of a trust store alone is complete");
        let proxy = self.proxy.clone();
        Builder::new().build_with_connector_fn(move |settings, _| {
            Connector::builder()
                .tls_provider(tls::Provider::Rustls(
                    tls::rustls_provider::CryptoMode::Ring,
                ))
                .tls_context(context.clone())
                .proxy_config(proxy.clone())
                .connector_settings(
                    settings
                        .cloned()
                        .unwrap_or_else(HttpConnectorSettings::default),
                )
                .build()
        })
    }
}

impl HttpClient for Transport {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(RoutingConnector {
            routes: Arc::clone(&self.routes),
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

#[derive(Debug)]
struct RoutingConnector {
    routes: Arc<Routes>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for RoutingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self
            .routes
            .client_for(request.uri())
            .http_connector(&self.settings, &self.components);
        let answer = connector.call(request);
        HttpConnectorFuture::new(async move {
            let response = answer.await?;
            if let Some(date) = response.headers().get("date") {
                watch_clock(date);
            }
            bounded(response)
        })
    }
}

fn plain_client(proxy: &ProxyConfig) -> SharedHttpClient {
    let proxy = proxy.clone();
    Builder::new()
        .build_with_connector_fn(move |settings, _| {
            Connector::builder()
                .proxy_config(proxy.clone())
                .connector_settings(
                    settings
                        .cloned()
                        .unwrap_or_else(HttpConnectorSettings::default),
                )
                .build_http()
        })
        .into_shared()
}

fn trust_store(path: &str) -> Result<tls::TrustStore, CaBundleError> {
    let error = |problem: String| CaBundleError {
        path: path.to_owned(),
        problem,
    };
    let pem =
        std::fs::read(Path::new(path)).map_err(|e| error(format!("it can't be read: {e}")))?;
    let text = String::from_utf8_lossy(&pem);
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(error("it holds no certificate".to_owned()));
    }
    Ok(tls::TrustStore::empty().with_pem_certificate(pem))
}

fn is_this_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
        // IMDS and the EKS credentials agent answer on fd00:ec2::254 and fd00:ec2::23.
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.segments()[..2] == [0xfd00, 0x0ec2],
        Err(_) => host == "localhost",
    }
}

fn bounded(response: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let announced = response
        .headers()
        .get("content-length")
        .and_then(|n| n.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > ANSWER_BYTES_MAX) {
        let problem = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
        return Err(ConnectorError::other(problem.into(), None));
    }
    Ok(response.map(|body| SdkBody::from_body_1_x(Limited::new(body, ANSWER_BYTES_MAX))))
}

fn watch_clock(date: &str) {
    let Ok(theirs) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date) else {
        return;
    };
    let skew = skew_seconds(clock::now(), theirs);
    if skew.abs() > CLOCK_SKEW_SECONDS_MAX {
        tracing::warn!(
            skew_seconds = skew,
            "this machine's clock differs from AWS's; AWS refuses signatures and usage with wrong times: set the clock (NTP)"
        );
    }
}

fn skew_seconds(ours: Timestamp, theirs: Timestamp) -> i64 {
    ours.as_second() - theirs.as_second()
}

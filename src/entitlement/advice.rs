//! What a person can do about a refusal or a failure, by the exception's name.

use super::platform::{Host, Platform};
use crate::config::EntitlementCheck;

/// tollgate's own reason: the proof does not verify.
pub const UNVERIFIED: &str = "unverified";
/// tollgate's own reason: nothing to sign requests with.
pub const NO_CREDENTIALS: &str = "NoCredentials";
/// tollgate's own reason: the service could not be reached.
pub const UNREACHABLE: &str = "Unreachable";

const CREDENTIALS: &str = "On ECS give the task a task role (taskRoleArn). On EKS use IRSA: annotate the pod's \
    ServiceAccount with eks.amazonaws.com/role-arn so that AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE are injected. \
    EKS Pod Identity, the node's role and long-term access keys do not work with AWS Marketplace metering.";

/// Advice for `reason`, in the terms of the place where the process runs.
pub fn advice(reason: &str, check: &EntitlementCheck, host: &Host) -> String {
    let region = &host.region;
    match reason {
        "CustomerNotEntitledException" | "CustomerNotSubscribedException" => "The AWS account that runs this has no active subscription \
            to the product: subscribe on AWS Marketplace (or accept the private offer) with this account, then start again."
            .to_owned(),
        "PlatformNotSupportedException" => platform_advice(host),
        "InvalidProductCodeException" => "AWS Marketplace knows no such product code: compare TOLLGATE_PRODUCT_CODE with the listing \
            in the AWS Marketplace Management Portal; a container product's code belongs to that listing alone."
            .to_owned(),
        "InvalidPublicKeyVersionException" | "InvalidPublicKeyException" => "AWS Marketplace has none of the key versions in \
            TOLLGATE_PUBLIC_KEYS for this product: the Management Portal shows version and key; add the file as VERSION=FILE."
            .to_owned(),
        "InvalidRegionException" | "InvalidEndpointRegionException" => format!(
            "AWS was asked in {region}, which is not where this task or pod runs or not open for the product: leave AWS_REGION to the \
             platform, or set it to the region that the task or pod runs in."
        ),
        "DisabledApiException" => format!(
            "The metering API is switched off for this product or in {region}: use a region in which the product is offered, or ask \
             AWS Marketplace seller operations."
        ),
        "AccessDeniedException" | "UnauthorizedException" | "AccessDenied" => format!(
            "The role may not make the call: allow {} on resource * in its policy (the managed policy \
             AWSMarketplaceMeteringRegisterUsage holds it), and see that no boundary or service control policy denies it.",
            action(check)
        ),
        "InvalidUsageDimensionException" => "The product has no such dimension: compare TOLLGATE_ENTITLEMENT_CHECK with the \
            dimensions (API names) of the listing."
            .to_owned(),
        "UnrecognizedClientException" | "InvalidClientTokenId" | "MissingAuthenticationTokenException" => {
            format!("AWS does not know the credentials. {CREDENTIALS}")
        }
        "ExpiredTokenException" | "ExpiredToken" => {
            format!("The credentials have expired and were not renewed: fixed session credentials can't be used. {CREDENTIALS}")
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" => "AWS rejects the request's own signature: \
            set the machine's clock (NTP), and see that no proxy changes requests."
            .to_owned(),
        NO_CREDENTIALS => CREDENTIALS.to_owned(),
        UNVERIFIED => "The answer is not signed by AWS Marketplace for this request. Compare the key files with the ones in the \
            Management Portal for this product and version; if they are right, something between here and AWS forges answers: look at \
            AWS_ENDPOINT_URL, proxies and AWS_CA_BUNDLE."
            .to_owned(),
        UNREACHABLE => format!(
            "Nothing answers for AWS Marketplace metering in {region}: allow HTTPS to metering.marketplace.{region}.amazonaws.com \
             (security group, NAT or proxy: HTTPS_PROXY, NO_PROXY, AWS_CA_BUNDLE), and look at the credentials' source."
        ),
        "ThrottlingException" | "InternalServiceErrorException" => "AWS Marketplace is overloaded or failing: nothing here is wrong; \
            start again later, or raise TOLLGATE_REGISTER_DEADLINE."
            .to_owned(),
        _ => "Look the exception up in the AWS Marketplace Metering Service API reference.".to_owned(),
    }
}

fn action(check: &EntitlementCheck) -> &'static str {
    match check {
        EntitlementCheck::RegisterUsage { .. } => "aws-marketplace:RegisterUsage",
        EntitlementCheck::MeterUsage(_) | EntitlementCheck::None => "aws-marketplace:MeterUsage",
    }
}

fn platform_advice(host: &Host) -> String {
    let found = match host.platform {
        Platform::Ecs => {
            "This is an ECS task; its role must be the task's own (taskRoleArn), not the container instance's."
        }
        Platform::Eks => {
            "This is a pod; it must run on Amazon EKS with IRSA: EKS Pod Identity and the node's role do not work with RegisterUsage."
        }
        Platform::Unknown => "Neither ECS nor Kubernetes was recognised here.",
    };
    format!("RegisterUsage works only in Amazon ECS tasks and Amazon EKS pods. {found}")
}

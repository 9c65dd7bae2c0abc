//! tollgate, the AWS Marketplace metering sidecar.

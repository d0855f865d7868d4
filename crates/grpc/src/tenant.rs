//! Whose objects a request is about: the metadata header `containerd-namespace`.

use berth_core::Tenant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::status::IntoStatus as _;

const HEADER: &str = "containerd-namespace";
const LEASE_HEADER: &str = "containerd-lease";

/// # Errors
/// `FailedPrecondition` without the header, as containerd answers; `InvalidArgument` for a name that is none.
pub(crate) fn of<T>(request: &Request<T>) -> Result<Tenant, Status> {
    from_metadata(request.metadata())
}

pub(crate) fn from_metadata(metadata: &MetadataMap) -> Result<Tenant, Status> {
    let missing = || Status::failed_precondition("namespace is required: set the metadata header containerd-namespace");
    let text = metadata.get(HEADER).ok_or_else(missing)?;
    let text = text.to_str().map_err(|_| Status::invalid_argument("the namespace's header is not text"))?;
    if text.is_empty() {
        return Err(missing());
    }
    text.parse::<Tenant>().map_err(|error| error.into_status())
}

/// A request of our own about a tenant.
///
/// # Errors
/// Never for a name that is one.
pub(crate) fn request_for<T>(tenant: &Tenant, message: T) -> Result<Request<T>, Status> {
    let value = tenant.as_str().parse().map_err(|_| Status::internal("a namespace's name is no header"))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(HEADER, value);
    Ok(request)
}

/// The lease under which the client works, if any.
pub(crate) fn lease_of<T>(request: &Request<T>) -> Option<String> {
    let text = request.metadata().get(LEASE_HEADER)?.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

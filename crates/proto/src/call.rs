//! One unary ttrpc call under a service name chosen at run time (generated clients know only `containerd.task.v3`).

use protobuf::Message;
use ttrpc::r#async::Client;

/// Sends `request` and decodes the answer. Puts no deadline on the wire: a server would drop its handler half way;
/// the caller stops waiting instead.
///
/// # Errors
/// What ttrpc reports: the remote's status, or a broken connection.
pub async fn unary<Req: Message, Resp: Message>(
    client: &Client,
    service: &str,
    method: &str,
    request: &Req,
) -> ttrpc::Result<Resp> {
    let unencodable = |e: protobuf::Error| ttrpc::Error::Others(format!("{service}.{method}: {e}"));
    let call = ttrpc::Request {
        service: service.to_owned(),
        method: method.to_owned(),
        payload: request.write_to_bytes().map_err(unencodable)?,
        ..Default::default()
    };
    let answer = client.request(call).await?;
    Resp::parse_from_bytes(&answer.payload).map_err(unencodable)
}

//! A socket of either family closes: what was known of its peer is forgotten.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

use crate::open;
use crate::socket;

#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    // SAFETY: the helper takes the context of this program type.
    open::forget(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) });
    socket::ALLOW
}

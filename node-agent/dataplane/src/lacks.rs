//! What this kernel does not have, and what follows from that: things without which Services are served all the same.
//!
//! It exists so that a person is told of them once, where the node is looked at. Must not decide anything.

use penstock_ebpf_common::PROTOCOL_TCP;

use crate::diag::Diag;

/// Something that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Links at interfaces.
    Links,
    /// Programs that pick entries of maps.
    Picks,
    /// The destruction of sockets.
    Destruction,
}

// === impl Lack ===

impl Lack {
    /// In words, with what follows.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Links => {
                "no links at interfaces (tcx, Linux 6.6): programs are attached there as classifiers (cls_bpf)"
            }
            Self::Picks => {
                "no programs that pick entries of maps (iter/bpf_map_elem, Linux 5.8 with BTF): whole maps are read when a \
                 backend goes, which takes longer"
            }
            Self::Destruction => {
                "no destruction of sockets (CONFIG_INET_DIAG_DESTROY): clients that are connected to a backend that is gone \
                 learn it by a timeout"
            }
        }
    }
}

/// Whether the kernel destroys sockets for those who ask for it.
pub fn has_destruction() -> bool {
    let asked = Diag::open().and_then(|mut diag| diag.destroy_nobodys(libc::AF_INET as u8, PROTOCOL_TCP));
    asked.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_follows() {
        for lack in [Lack::Links, Lack::Picks, Lack::Destruction] {
            assert!(lack.text().starts_with("no ") && lack.text().contains("): "), "{}", lack.text());
        }
    }
}

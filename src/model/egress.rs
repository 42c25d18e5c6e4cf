//! Which addresses an operator may point a channel at.
//!
//! A channel's URL may come from the console, so from somebody with less power than the machine has. Cloud metadata services
//! hand out credentials to whoever can reach them from inside; they are denied by default and always. The check is on
//! addresses, after resolution, because a name can be made to resolve to anything.
//!
//! Absent on purpose: resolving names and connecting. The socket asks [`Egress::permits`] for every address before it
//! connects to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What `[egress]` permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Networks that no channel may reach: the operator's and [`Egress::METADATA`].
    pub deny: Vec<IpNet>,
    /// Whether plain `http://` is permitted beyond loopback.
    pub allow_http: bool,
}

impl Egress {
    /// Where clouds keep instance metadata: IPv4 and IPv6 link-local (AWS, Azure, GCP and most others answer on
    /// 169.254.169.254), the IPv6 address of AWS, and Alibaba's 100.100.100.200.
    pub const METADATA: [IpNet; 4] = [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 100, 200), 32)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128)),
    ];

    /// The metadata networks and `deny` are denied.
    pub fn new(deny: impl IntoIterator<Item = IpNet>, allow_http: bool) -> Self {
        let mut all = Self::METADATA.to_vec();
        for net in deny {
            if !all.contains(&net) {
                all.push(net);
            }
        }
        Self { deny: all, allow_http }
    }

    /// Whether a channel may connect to `ip`. An IPv4 address that is written as IPv6 (mapped, or through the NAT64 prefix)
    /// is judged as the IPv4 address that it reaches, too.
    pub fn permits(&self, ip: IpAddr) -> bool {
        let inner = match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => v6.to_ipv4_mapped().or_else(|| nat64(v6)),
        };
        let denied = |ip: IpAddr| self.deny.iter().any(|net| net.contains(&ip) || net.contains(&this_machine(ip)));
        !denied(ip) && !inner.is_some_and(|v4| denied(IpAddr::V4(v4)))
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self::new([], false)
    }
}

/// The address that is reached by connecting to `ip`: the unspecified address (`0.0.0.0`, `::`) is this machine.
fn this_machine(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other @ (IpAddr::V4(_) | IpAddr::V6(_)) => other,
    }
}

/// The IPv4 address that a NAT64 gateway would reach for `ip`. Source: RFC 6052, the well-known prefix 64:ff9b::/96.
fn nat64(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = ip.segments() else { return None };
    Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::Egress;

    #[test]
    fn metadata_is_denied_however_its_address_is_written() {
        let egress = Egress::default();
        for denied in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
        ] {
            assert!(!egress.permits(denied.parse().unwrap()), "{denied}");
        }
        for permitted in
            ["10.0.0.1", "127.0.0.1", "1.1.1.1", "::1", "fd00:ec2::253", "2606:4700::1111", "::ffff:1.1.1.1"]
        {
            assert!(egress.permits(permitted.parse().unwrap()), "{permitted}");
        }
    }

    #[test]
    fn a_denied_loopback_is_not_reached_by_the_unspecified_address() {
        let egress = Egress::new(["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()], false);
        for denied in ["127.0.0.1", "0.0.0.0", "::ffff:0.0.0.0", "::", "::1"] {
            assert!(!egress.permits(denied.parse().unwrap()), "{denied}");
            assert!(Egress::default().permits(denied.parse().unwrap()), "{denied}");
        }
    }

    #[test]
    fn the_operators_networks_are_denied_on_top_of_metadata() {
        let egress = Egress::new(["10.0.0.0/8".parse().unwrap(), "fe80::/10".parse().unwrap()], false);
        assert_eq!(egress.deny.len(), Egress::METADATA.len() + 1);
        for denied in ["10.1.2.3", "::ffff:10.1.2.3", "169.254.169.254"] {
            assert!(!egress.permits(denied.parse().unwrap()), "{denied}");
        }
    }
}

//! The pod network: links, addresses, routes, overlay, and the socket the CNI binary calls.

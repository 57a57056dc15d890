//! The container runtime as the agent sees it: the CRI client, and a fake for tests.

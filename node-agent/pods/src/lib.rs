//! Pods: the kubelet half of the agent.

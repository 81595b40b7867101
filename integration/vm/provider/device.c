// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * device.c: RDMA devices as they are seen from outside: names, GUIDs, ports, network interfaces.
 *
 * Responsible for: telling of each port what its protocol makes others expect, and for letting go
 * of network interfaces that go.
 *
 * Must never: carry data; the objects that ULPs make are in queues.c.
 */
#include <linux/etherdevice.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <rdma/ib_mad.h>
#include <rdma/ib_pma.h>
#include <rdma/iw_cm.h>
#include <rdma/opa_smi.h>

#include "provider.h"

#define GUID_BASE 0x0200000000000000ULL
#define SUBNET_PREFIX 0xfe80000000000000ULL
#define LIDS 0xbf00
#define SM_LID 1

static const struct {
	u32 core_cap_flags;
	u32 max_mad_size;
	int gids;
	int pkeys;
	enum rdma_link_layer link_layer;
	u8 node_type;
} protocols[] = {
	[PROTOCOL_IB] = { RDMA_CORE_PORT_IBA_IB, IB_MGMT_MAD_SIZE, 8, 16,
			  IB_LINK_LAYER_INFINIBAND, RDMA_NODE_IB_CA },
	[PROTOCOL_ROCE] = { RDMA_CORE_PORT_IBA_ROCE_UDP_ENCAP, IB_MGMT_MAD_SIZE, 32, 1,
			    IB_LINK_LAYER_ETHERNET, RDMA_NODE_IB_CA },
	[PROTOCOL_IW] = { RDMA_CORE_PORT_IWARP, 0, 1, 1,
			  IB_LINK_LAYER_ETHERNET, RDMA_NODE_RNIC },
	[PROTOCOL_OPA] = { RDMA_CORE_PORT_INTEL_OPA, OPA_MGMT_MAD_SIZE, 8, 16,
			   IB_LINK_LAYER_INFINIBAND, RDMA_NODE_IB_CA },
	[PROTOCOL_USNIC] = { RDMA_CORE_PORT_USNIC, 0, 1, 1,
			     IB_LINK_LAYER_ETHERNET, RDMA_NODE_USNIC_UDP },
	[PROTOCOL_NONE] = { 0, 0, 1, 1,
			    IB_LINK_LAYER_UNSPECIFIED, RDMA_NODE_UNSPECIFIED },
};

/* The list, and which network interface is attached where. */
DEFINE_MUTEX(devices_lock);
static LIST_HEAD(devices);
static u32 devices_made;
static struct workqueue_struct *detaching;

static struct provider_device *to_provider(struct ib_device *ibdev)
{
	return container_of(ibdev, struct provider_device, ibdev);
}

static bool is_subnet_managed(enum protocol protocol)
{
	return protocol == PROTOCOL_IB || protocol == PROTOCOL_OPA;
}

static int query_device(struct ib_device *ibdev, struct ib_device_attr *attr,
			struct ib_udata *udata)
{
	attr->sys_image_guid = ibdev->node_guid;
	attr->fw_ver = 0x100020003ULL;
	attr->hw_ver = 1;
	attr->max_mr_size = ~0ULL;
	attr->page_size_cap = PAGE_SIZE;
	attr->max_qp = 1 << 16;
	attr->max_qp_wr = 1 << 14;
	attr->max_send_sge = 32;
	attr->max_recv_sge = 32;
	attr->max_sge_rd = 32;
	attr->max_cq = 1 << 16;
	attr->max_cqe = 1 << 20;
	attr->max_mr = 1 << 16;
	attr->max_pd = 1 << 16;
	attr->max_qp_rd_atom = 16;
	attr->max_qp_init_rd_atom = 16;
	attr->max_ah = 1 << 16;
	attr->max_mcast_grp = 1 << 10;
	attr->max_mcast_qp_attach = 16;
	attr->max_pkeys = 16;
	return 0;
}

static void get_dev_fw_str(struct ib_device *ibdev, char *str)
{
	snprintf(str, IB_FW_VERSION_NAME_MAX, "1.2.3");
}

/* rdma-ndd writes it. */
static int modify_device(struct ib_device *ibdev, int mask, struct ib_device_modify *modify)
{
	if (mask & ~IB_DEVICE_MODIFY_NODE_DESC)
		return -EOPNOTSUPP;
	if (mask)
		memcpy(ibdev->node_desc, modify->node_desc, sizeof(ibdev->node_desc));
	return 0;
}

/* ib_umad and issm set capabilities; nobody is there to see them. */
static int modify_port(struct ib_device *ibdev, u32 port, int mask,
		       struct ib_port_modify *modify)
{
	return 0;
}

static int query_port(struct ib_device *ibdev, u32 number, struct ib_port_attr *attr)
{
	struct provider_device *dev = to_provider(ibdev);
	struct provider_port *port = &dev->spec.port[number];

	attr->state = READ_ONCE(port->state);
	attr->phys_state = attr->state == IB_PORT_DOWN ? IB_PORT_PHYS_STATE_POLLING :
							 IB_PORT_PHYS_STATE_LINK_UP;
	attr->active_width = IB_WIDTH_4X;
	attr->active_speed = IB_SPEED_EDR;
	attr->max_mtu = IB_MTU_4096;
	attr->active_mtu = IB_MTU_4096;
	attr->phys_mtu = 4096;
	attr->max_msg_sz = 1U << 30;
	attr->max_vl_num = 1;
	attr->gid_tbl_len = protocols[port->protocol].gids;
	attr->pkey_tbl_len = protocols[port->protocol].pkeys;
	attr->ip_gids = port->protocol == PROTOCOL_ROCE;
	attr->port_cap_flags = IB_PORT_CM_SUP;
	if (!is_subnet_managed(port->protocol))
		return 0;
	attr->subnet_prefix = SUBNET_PREFIX;
	/* Both are the subnet manager's gift. */
	if (attr->state == IB_PORT_ARMED || attr->state == IB_PORT_ACTIVE) {
		attr->lid = SM_LID + 1 + (dev->spec.number * MAX_PORTS + number) % LIDS;
		attr->sm_lid = SM_LID;
	}
	return 0;
}

static int get_port_immutable(struct ib_device *ibdev, u32 number,
			      struct ib_port_immutable *immutable)
{
	enum protocol protocol = to_provider(ibdev)->spec.port[number].protocol;

	immutable->core_cap_flags = protocols[protocol].core_cap_flags;
	immutable->max_mad_size = protocols[protocol].max_mad_size;
	immutable->gid_tbl_len = protocols[protocol].gids;
	immutable->pkey_tbl_len = protocols[protocol].pkeys;
	return 0;
}

static enum rdma_link_layer get_link_layer(struct ib_device *ibdev, u32 number)
{
	return protocols[to_provider(ibdev)->spec.port[number].protocol].link_layer;
}

static int query_gid(struct ib_device *ibdev, u32 number, int index, union ib_gid *gid)
{
	memset(gid, 0, sizeof(*gid));
	if (index)
		return 0;
	gid->global.subnet_prefix = cpu_to_be64(SUBNET_PREFIX);
	gid->global.interface_id = cpu_to_be64(be64_to_cpu(ibdev->node_guid) + number);
	return 0;
}

/* ib_core keeps the table of a RoCE port; there is no hardware to tell. */
static int add_gid(const struct ib_gid_attr *attr, void **context)
{
	return 0;
}

static int del_gid(const struct ib_gid_attr *attr, void **context)
{
	return 0;
}

static int query_pkey(struct ib_device *ibdev, u32 number, u16 index, u16 *pkey)
{
	*pkey = index ? 0 : IB_DEFAULT_PKEY_FULL;
	return 0;
}

/* Counters, which sysfs asks for.  Every other MAD is one that nobody answers. */
static int process_mad(struct ib_device *ibdev, int flags, u32 number, const struct ib_wc *wc,
		       const struct ib_grh *grh, const struct ib_mad *in, struct ib_mad *out,
		       size_t *out_size, u16 *out_pkey_index)
{
	struct ib_class_port_info *info;

	if (in->mad_hdr.mgmt_class != IB_MGMT_CLASS_PERF_MGMT ||
	    in->mad_hdr.method != IB_MGMT_METHOD_GET)
		return IB_MAD_RESULT_SUCCESS;
	memset(out, 0, sizeof(*out));
	out->mad_hdr = in->mad_hdr;
	out->mad_hdr.method = IB_MGMT_METHOD_GET_RESP;
	if (in->mad_hdr.attr_id == IB_PMA_CLASS_PORT_INFO) {
		info = (void *)((struct ib_pma_mad *)out)->data;
		info->capability_mask = IB_PMA_CLASS_CAP_EXT_WIDTH;
	}
	return IB_MAD_RESULT_SUCCESS | IB_MAD_RESULT_REPLY;
}

static ssize_t hw_rev_show(struct device *device, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "0x1\n");
}
static DEVICE_ATTR_RO(hw_rev);

static ssize_t hca_type_show(struct device *device, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "PROV\n");
}
static DEVICE_ATTR_RO(hca_type);

static ssize_t board_id_show(struct device *device, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "PROV0001\n");
}
static DEVICE_ATTR_RO(board_id);

static struct attribute *device_attributes[] = {
	&dev_attr_hw_rev.attr,
	&dev_attr_hca_type.attr,
	&dev_attr_board_id.attr,
	NULL,
};

static const struct attribute_group device_group = { .attrs = device_attributes };

static const struct ib_device_ops device_ops = {
	.owner = THIS_MODULE,
	.driver_id = RDMA_DRIVER_UNKNOWN,
	.uverbs_abi_ver = 1,
	.device_group = &device_group,
	.query_device = query_device,
	.get_dev_fw_str = get_dev_fw_str,
	.modify_device = modify_device,
	.modify_port = modify_port,
	.query_port = query_port,
	.get_port_immutable = get_port_immutable,
	.get_link_layer = get_link_layer,
	.query_gid = query_gid,
	.query_pkey = query_pkey,
};

static const struct ib_device_ops mad_ops = { .process_mad = process_mad };

static const struct ib_device_ops roce_ops = { .add_gid = add_gid, .del_gid = del_gid };

/* iw_cm may ask for connections; it gets none. */
static void iw_ref(struct ib_qp *qp)
{
}

static struct ib_qp *iw_get_qp(struct ib_device *ibdev, int number)
{
	return NULL;
}

static int iw_refuse(struct iw_cm_id *id, struct iw_cm_conn_param *param)
{
	return -ECONNREFUSED;
}

static int iw_reject(struct iw_cm_id *id, const void *data, u8 length)
{
	return -ECONNREFUSED;
}

static int iw_create_listen(struct iw_cm_id *id, int backlog)
{
	return 0;
}

static int iw_destroy_listen(struct iw_cm_id *id)
{
	return 0;
}

static const struct ib_device_ops iw_ops = {
	.iw_add_ref = iw_ref,
	.iw_rem_ref = iw_ref,
	.iw_get_qp = iw_get_qp,
	.iw_connect = iw_refuse,
	.iw_accept = iw_refuse,
	.iw_reject = iw_reject,
	.iw_create_listen = iw_create_listen,
	.iw_destroy_listen = iw_destroy_listen,
};

static netdev_tx_t netdev_drop(struct sk_buff *skb, struct net_device *netdev)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops netdev_ops = { .ndo_start_xmit = netdev_drop };

static struct net_device *netdev_add(struct device *parent, u64 guid)
{
	struct net_device *netdev;
	u8 address[ETH_ALEN];
	int error;

	netdev = alloc_netdev(0, "provider%d", NET_NAME_ENUM, ether_setup);
	if (!netdev)
		return ERR_PTR(-ENOMEM);
	u64_to_ether_addr((GUID_BASE >> 16) | (guid & 0xffffffffff), address);
	eth_hw_addr_set(netdev, address);
	netdev->netdev_ops = &netdev_ops;
	SET_NETDEV_DEV(netdev, parent);
	error = register_netdev(netdev);
	if (error) {
		free_netdev(netdev);
		return ERR_PTR(error);
	}
	return netdev;
}

static int attach(struct provider_device *dev, u32 number, struct net_device *netdev)
{
	int error = ib_device_set_netdev(&dev->ibdev, netdev, number);

	if (!error)
		dev->spec.port[number].netdev = netdev;
	return error;
}

static void own_netdevs_remove(struct provider_device *dev)
{
	u32 number;

	for (number = 1; number <= dev->spec.ports; number++) {
		struct provider_port *port = &dev->spec.port[number];

		if (!port->own_netdev)
			continue;
		/* Of one that was registered ib_core has let go by itself. */
		if (port->netdev == port->own_netdev)
			attach(dev, number, NULL);
		unregister_netdev(port->own_netdev);
		free_netdev(port->own_netdev);
		port->own_netdev = NULL;
	}
}

static int own_netdevs_add(struct provider_device *dev)
{
	u64 guid = be64_to_cpu(dev->ibdev.node_guid);
	u32 number;
	int error;

	for (number = 1; number <= dev->spec.ports; number++) {
		struct net_device *netdev;

		if (dev->spec.port[number].protocol != PROTOCOL_IW)
			continue;
		netdev = netdev_add(dev->ibdev.dev.parent, guid + number);
		if (IS_ERR(netdev))
			return PTR_ERR(netdev);
		dev->spec.port[number].own_netdev = netdev;
		error = attach(dev, number, netdev);
		if (error)
			return error;
		if (number == 1)
			strscpy(dev->ibdev.iw_ifname, netdev->name, IFNAMSIZ);
	}
	return 0;
}

static void set_ops(struct provider_device *dev)
{
	u32 number;

	ib_set_device_ops(&dev->ibdev, &device_ops);
	ib_set_device_ops(&dev->ibdev, &queue_ops);
	for (number = 1; number <= dev->spec.ports; number++) {
		enum protocol protocol = dev->spec.port[number].protocol;

		if (protocols[protocol].core_cap_flags & RDMA_CORE_CAP_IB_MAD)
			ib_set_device_ops(&dev->ibdev, &mad_ops);
		if (protocol == PROTOCOL_ROCE)
			ib_set_device_ops(&dev->ibdev, &roce_ops);
		if (protocol == PROTOCOL_IW)
			ib_set_device_ops(&dev->ibdev, &iw_ops);
	}
}

struct provider_device *provider_add(const struct device_spec *spec, struct device *parent,
				   struct auxiliary_device *function)
{
	struct provider_device *dev;
	int error;

	dev = ib_alloc_device(provider_device, ibdev);
	if (!dev)
		return ERR_PTR(-ENOMEM);
	dev->spec = *spec;
	if (!dev->spec.number)
		dev->spec.number = ++devices_made;
	dev->function = function;
	dev->ibdev.node_type = protocols[spec->port[1].protocol].node_type;
	dev->ibdev.phys_port_cnt = spec->ports;
	dev->ibdev.num_comp_vectors = 1;
	dev->ibdev.dev.parent = parent;
	dev->ibdev.node_guid = cpu_to_be64(GUID_BASE | (u64)dev->spec.number << 8);
	strscpy(dev->ibdev.node_desc, KBUILD_MODNAME, sizeof(dev->ibdev.node_desc));
	set_ops(dev);

	error = own_netdevs_add(dev);
	/* No DMA device: buffers stay addresses of this kernel. */
	if (!error)
		error = ib_register_device(&dev->ibdev, spec->name, NULL);
	if (error) {
		own_netdevs_remove(dev);
		ib_dealloc_device(&dev->ibdev);
		return ERR_PTR(error == -ENFILE ? -EEXIST : error);
	}
	mutex_lock(&devices_lock);
	list_add_tail(&dev->list, &devices);
	mutex_unlock(&devices_lock);
	return dev;
}

void provider_remove(struct provider_device *dev)
{
	mutex_lock(&devices_lock);
	list_del(&dev->list);
	mutex_unlock(&devices_lock);
	ib_unregister_device(&dev->ibdev);
	own_netdevs_remove(dev);
	ib_dealloc_device(&dev->ibdev);
}

/* Commands are one at a time and only they remove devices: what these return stays. */
struct provider_device *ibdev_named(const char *name)
{
	struct provider_device *dev, *once = NULL;

	mutex_lock(&devices_lock);
	list_for_each_entry(dev, &devices, list) {
		if (!strcmp(dev_name(&dev->ibdev.dev), name))
			goto out;
		if (!strcmp(dev->spec.name, name))
			once = dev;
	}
	dev = once;
out:
	mutex_unlock(&devices_lock);
	return dev;
}

struct provider_device *ibdev_of_function(struct auxiliary_device *function)
{
	struct provider_device *dev, *found = NULL;

	mutex_lock(&devices_lock);
	list_for_each_entry(dev, &devices, list)
		if (dev->function == function)
			found = dev;
	mutex_unlock(&devices_lock);
	return found;
}

struct provider_device *ibdev_any(void)
{
	struct provider_device *dev;

	mutex_lock(&devices_lock);
	dev = list_first_entry_or_null(&devices, struct provider_device, list);
	mutex_unlock(&devices_lock);
	return dev;
}

void ibdev_set_state(struct provider_device *dev, u32 port, enum ib_port_state state)
{
	struct ib_event event = {
		.device = &dev->ibdev,
		.element.port_num = port,
		.event = state == IB_PORT_ACTIVE ? IB_EVENT_PORT_ACTIVE : IB_EVENT_PORT_ERR,
	};

	WRITE_ONCE(dev->spec.port[port].state, state);
	ib_dispatch_event(&event);
}

int ibdev_set_netdev(struct provider_device *dev, u32 number, struct net_device *netdev)
{
	struct provider_port *port = &dev->spec.port[number];
	bool to_scan = netdev && port->protocol == PROTOCOL_ROCE;
	int error;

	mutex_lock(&devices_lock);
	error = attach(dev, number, netdev ?: port->own_netdev);
	mutex_unlock(&devices_lock);
	/* Takes the rtnl_lock.  A driver attaches before its interface has addresses. */
	if (!error && to_scan)
		rdma_roce_rescan_device(&dev->ibdev);
	return error;
}

struct detach {
	struct work_struct work;
	struct net_device *netdev;
};

static void detach(struct work_struct *work)
{
	struct detach *gone = container_of(work, struct detach, work);
	struct provider_device *dev;
	u32 number;

	mutex_lock(&devices_lock);
	list_for_each_entry(dev, &devices, list)
		for (number = 1; number <= dev->spec.ports; number++)
			if (dev->spec.port[number].netdev == gone->netdev)
				attach(dev, number, dev->spec.port[number].own_netdev);
	mutex_unlock(&devices_lock);
	dev_put(gone->netdev);
	kfree(gone);
}

/*
 * ib_core holds on to an attached interface until it is told, and who deletes the interface
 * waits.  Not from here, where the rtnl_lock is held, which registering takes with its own.
 */
static int netdev_event(struct notifier_block *block, unsigned long event, void *data)
{
	struct net_device *netdev = netdev_notifier_info_to_dev(data);
	struct detach *gone;

	/* An interface that moves to another network namespace says so too, but stays. */
	if (event != NETDEV_UNREGISTER || netdev->reg_state != NETREG_UNREGISTERING ||
	    netdev->netdev_ops == &netdev_ops)
		return NOTIFY_DONE;
	gone = kzalloc(sizeof(*gone), GFP_KERNEL | __GFP_NOFAIL);
	INIT_WORK(&gone->work, detach);
	dev_hold(netdev);
	gone->netdev = netdev;
	queue_work(detaching, &gone->work);
	return NOTIFY_DONE;
}

static struct notifier_block netdev_notifier = { .notifier_call = netdev_event };

int devices_init(void)
{
	int error;

	detaching = alloc_workqueue("rdma_provider_netdev", 0, 0);
	if (!detaching)
		return -ENOMEM;
	error = register_netdevice_notifier(&netdev_notifier);
	if (error)
		destroy_workqueue(detaching);
	return error;
}

void devices_exit(void)
{
	unregister_netdevice_notifier(&netdev_notifier);
	destroy_workqueue(detaching);
}

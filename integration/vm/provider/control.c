// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * control.c: rdma_provider, RDMA devices of every protocol without hardware, for tests.
 *
 * One command a write to /sys/module/rdma_provider/parameters/control:
 *
 *   add NAME PROTOCOL PORTS DRIVER         NAME may contain %d: the kernel picks the number
 *   storm PREFIX COUNT PROTOCOL PORTS DRIVER  PREFIX0 to PREFIX(COUNT-1)
 *   del NAME                               as it is called now, or was when it was added
 *   del-all                                all RDMA devices; functions stay
 *   state NAME PORT down|init|armed|active
 *   netdev NAME PORT IFNAME|-              IFNAME of the writer's network namespace; - detaches
 *   type NAME PORT ib|eth                  as mlx4 does it: the device goes and comes again
 *   aux MATCH ID [DRIVER]                  function rdma_provider.MATCH.ID of the auxiliary bus
 *   aux-del MATCH ID
 *   auxdriver on                           binds functions rdma_provider.rdma, and no more
 *   auxdriver on ibdev [NAME PROTOCOL PORTS]  and registers an RDMA device for each
 *   auxdriver off
 *
 * PROTOCOL is ib, roce, iw, opa, usnic, none, or mixed: port 1 ib and the others roce.  DRIVER
 * is what the platform device that is the parent is bound to.
 *
 * A write fails with EINVAL where it is not understood, ENOENT for what does not exist, EEXIST
 * for what does already.  A storm that fails leaves what it has added.
 *
 * Responsible for: understanding commands, one at a time, and for nothing being left when the
 * module goes.
 *
 * Must never: be part of a system that is not a test: it keeps no promise that RDMA makes.
 */
#include <linux/netdevice.h>
#include <linux/module.h>
#include <linux/nsproxy.h>
#include <linux/slab.h>
#include <net/net_namespace.h>

#include "provider.h"

#define MAX_WORDS 8

static DEFINE_MUTEX(control_lock);
/* Parameters can be written until the module is all but gone. */
static bool leaving;

static const char *const protocol_names[] = {
	[PROTOCOL_IB] = "ib",	    [PROTOCOL_ROCE] = "roce",	[PROTOCOL_IW] = "iw",
	[PROTOCOL_OPA] = "opa",	    [PROTOCOL_USNIC] = "usnic", [PROTOCOL_NONE] = "none",
};

static const char *const state_names[] = {
	[IB_PORT_DOWN] = "down",
	[IB_PORT_INIT] = "init",
	[IB_PORT_ARMED] = "armed",
	[IB_PORT_ACTIVE] = "active",
};

static int index_of(const char *word, const char *const *names, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (names[i] && !strcmp(word, names[i]))
			return i;
	return -EINVAL;
}

/* One %d and no other: ib_core uses such a name as a format. */
static bool is_device_name(const char *name)
{
	char plain[IB_DEVICE_NAME_MAX];
	char *number;

	if (strscpy(plain, name, sizeof(plain)) < 0)
		return false;
	number = strstr(plain, "%d");
	if (number)
		memcpy(number, "00", 2);
	return is_plain_name(plain, sizeof(plain));
}

int parse_spec(struct device_spec *spec, const char *name, const char *protocol,
	       const char *ports)
{
	bool mixed = !strcmp(protocol, "mixed");
	int all = 0;
	u32 port;

	if (!is_device_name(name) || kstrtou32(ports, 10, &spec->ports))
		return -EINVAL;
	if (!spec->ports || spec->ports > MAX_PORTS)
		return -EINVAL;
	if (!mixed) {
		all = index_of(protocol, protocol_names, ARRAY_SIZE(protocol_names));
		if (all < 0)
			return all;
	}
	strscpy(spec->name, name, sizeof(spec->name));
	for (port = 1; port <= spec->ports; port++) {
		spec->port[port].protocol = all;
		if (mixed)
			spec->port[port].protocol = port == 1 ? PROTOCOL_IB : PROTOCOL_ROCE;
		spec->port[port].state = IB_PORT_ACTIVE;
	}
	return 0;
}

static int add(const struct device_spec *spec, const char *driver)
{
	struct provider_device *dev;
	struct platform_device *parent;

	parent = parent_add(driver);
	if (IS_ERR(parent))
		return PTR_ERR(parent);
	dev = provider_add(spec, &parent->dev, NULL);
	if (IS_ERR(dev)) {
		parent_remove(parent);
		return PTR_ERR(dev);
	}
	dev->parent = parent;
	return 0;
}

static void del(struct provider_device *dev)
{
	struct platform_device *parent = dev->parent;

	provider_remove(dev);
	if (parent)
		parent_remove(parent);
}

static int run_add(unsigned int count, char **words)
{
	struct device_spec spec = {};
	int error = parse_spec(&spec, words[0], words[1], words[2]);

	return error ?: add(&spec, words[3]);
}

static int run_storm(unsigned int count, char **words)
{
	struct device_spec spec = {};
	u32 devices, i;
	int error;

	error = parse_spec(&spec, words[0], words[2], words[3]);
	if (error || strchr(words[0], '%') || kstrtou32(words[1], 10, &devices))
		return -EINVAL;
	for (i = 0; i < devices; i++) {
		if (snprintf(spec.name, sizeof(spec.name), "%s%u", words[0], i) >=
		    sizeof(spec.name))
			return -EINVAL;
		error = add(&spec, words[4]);
		if (error)
			return error;
		cond_resched();
	}
	return 0;
}

static int run_del(unsigned int count, char **words)
{
	struct provider_device *dev = ibdev_named(words[0]);

	if (!dev)
		return -ENOENT;
	del(dev);
	return 0;
}

static int run_del_all(unsigned int count, char **words)
{
	struct provider_device *dev;

	while ((dev = ibdev_any()))
		del(dev);
	return 0;
}

/* The device and port that two words name. */
static int find_port(char **words, struct provider_device **dev, u32 *port)
{
	if (kstrtou32(words[1], 10, port))
		return -EINVAL;
	*dev = ibdev_named(words[0]);
	if (!*dev || !*port || *port > (*dev)->spec.ports)
		return -ENOENT;
	return 0;
}

static int run_state(unsigned int count, char **words)
{
	int state = index_of(words[2], state_names, ARRAY_SIZE(state_names));
	struct provider_device *dev;
	u32 port;
	int error;

	if (state < 0)
		return state;
	error = find_port(words, &dev, &port);
	if (!error)
		ibdev_set_state(dev, port, state);
	return error;
}

static int run_netdev(unsigned int count, char **words)
{
	struct provider_device *dev;
	struct net_device *netdev = NULL;
	u32 port;
	int error;

	error = find_port(words, &dev, &port);
	if (error)
		return error;
	if (strcmp(words[2], "-")) {
		netdev = dev_get_by_name(current->nsproxy->net_ns, words[2]);
		if (!netdev)
			return -ENOENT;
	}
	error = ibdev_set_netdev(dev, port, netdev);
	dev_put(netdev);
	return error;
}

static int run_type(unsigned int count, char **words)
{
	struct provider_device *dev;
	struct platform_device *parent;
	struct auxiliary_device *function;
	struct device_spec spec;
	struct device *device;
	enum protocol protocol;
	u32 port, i;
	int error;

	if (!strcmp(words[2], "ib"))
		protocol = PROTOCOL_IB;
	else if (!strcmp(words[2], "eth"))
		protocol = PROTOCOL_ROCE;
	else
		return -EINVAL;
	error = find_port(words, &dev, &port);
	if (error)
		return error;
	spec = dev->spec;
	if (spec.port[port].protocol != PROTOCOL_IB && spec.port[port].protocol != PROTOCOL_ROCE)
		return -EINVAL;
	if (spec.port[port].protocol == protocol)
		return 0;
	strscpy(spec.name, dev_name(&dev->ibdev.dev), sizeof(spec.name));
	spec.port[port].protocol = protocol;
	for (i = 1; i <= spec.ports; i++)
		spec.port[i].netdev = NULL;

	/* The function stays, with its driver and its GUIDs; only the RDMA device is another. */
	parent = dev->parent;
	function = dev->function;
	device = dev->ibdev.dev.parent;
	provider_remove(dev);
	dev = provider_add(&spec, device, function);
	if (IS_ERR(dev)) {
		if (parent)
			parent_remove(parent);
		return PTR_ERR(dev);
	}
	dev->parent = parent;
	return 0;
}

static int run_aux(unsigned int count, char **words)
{
	u32 id;

	if (kstrtou32(words[1], 10, &id))
		return -EINVAL;
	return function_add(words[0], id, count > 2 ? words[2] : KBUILD_MODNAME);
}

static int run_aux_del(unsigned int count, char **words)
{
	u32 id;

	if (kstrtou32(words[1], 10, &id))
		return -EINVAL;
	return function_remove(words[0], id);
}

static int run_auxdriver(unsigned int count, char **words)
{
	struct device_spec spec = {};
	int error;

	if (count == 1 && !strcmp(words[0], "off"))
		return function_driver_off();
	if (strcmp(words[0], "on"))
		return -EINVAL;
	if (count == 1)
		return function_driver_on(NULL);
	if (strcmp(words[1], "ibdev"))
		return -EINVAL;
	if (count == 2)
		error = parse_spec(&spec, "provider_%d", "ib", "1");
	else if (count == 5)
		error = parse_spec(&spec, words[2], words[3], words[4]);
	else
		error = -EINVAL;
	return error ?: function_driver_on(&spec);
}

static const struct command {
	const char *name;
	unsigned int least, most;
	int (*run)(unsigned int count, char **words);
} commands[] = {
	{ "add", 4, 4, run_add },
	{ "storm", 5, 5, run_storm },
	{ "del", 1, 1, run_del },
	{ "del-all", 0, 0, run_del_all },
	{ "state", 3, 3, run_state },
	{ "netdev", 3, 3, run_netdev },
	{ "type", 3, 3, run_type },
	{ "aux", 2, 3, run_aux },
	{ "aux-del", 2, 2, run_aux_del },
	{ "auxdriver", 1, 5, run_auxdriver },
};

static int run(unsigned int count, char **words)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *command = &commands[i];

		if (strcmp(command->name, words[0]))
			continue;
		if (count - 1 < command->least || count - 1 > command->most)
			return -EINVAL;
		return command->run(count - 1, words + 1);
	}
	return -EINVAL;
}

static int control_set(const char *value, const struct kernel_param *param)
{
	char *words[MAX_WORDS];
	unsigned int count = 0;
	char *copy, *rest, *word;
	int error = -EINVAL;

	copy = kstrdup(value, GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	rest = strim(copy);
	while ((word = strsep(&rest, " \t"))) {
		if (!*word)
			continue;
		if (count == MAX_WORDS)
			goto out;
		words[count++] = word;
	}
	if (!count)
		goto out;
	mutex_lock(&control_lock);
	error = leaving ? -ENODEV : run(count, words);
	mutex_unlock(&control_lock);
out:
	kfree(copy);
	return error;
}

static const struct kernel_param_ops control_ops = { .set = control_set };
module_param_cb(control, &control_ops, NULL, 0200);
MODULE_PARM_DESC(control, "one command, see control.c");

static int __init provider_init(void)
{
	int error = queues_init();

	if (error)
		return error;
	error = devices_init();
	if (error)
		queues_exit();
	return error;
}

static void __exit provider_exit(void)
{
	mutex_lock(&control_lock);
	leaving = true;
	functions_exit();
	run_del_all(0, NULL);
	parent_drivers_remove();
	mutex_unlock(&control_lock);
	devices_exit();
	queues_exit();
}

module_init(provider_init);
module_exit(provider_exit);
MODULE_DESCRIPTION("RDMA devices without hardware, for tests");
MODULE_LICENSE("Dual MIT/GPL");

// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * queues.c: the objects that ULPs and processes make of an RDMA device.
 *
 * Responsible for: everything being there that ib_mad, ib_ipoib and others want when they meet a
 * device or part with it.  What is sent is gone and has succeeded; nothing is ever received; what
 * was posted to receive comes back when its queue pair goes into the error state.
 *
 * Must never: leave a work request without its completion: ULPs wait for them.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "provider.h"

struct provider_cq {
	struct ib_cq ibcq;
	/* Inside of a queue pair's. */
	spinlock_t lock;
	struct list_head entries;
	bool armed;
	struct work_struct notify;
};

struct provider_qp {
	struct ib_qp ibqp;
	spinlock_t lock;
	/* What was posted to receive. */
	struct list_head receives;
	enum ib_qp_state state;
	struct ib_qp_init_attr init_attr;
};

struct entry {
	struct list_head list;
	struct ib_wc wc;
};

static struct workqueue_struct *notifying;
static atomic_t last_qp_num = ATOMIC_INIT(1);
static struct kmem_cache *entry_cache;

static struct provider_cq *to_cq(struct ib_cq *ibcq)
{
	return container_of(ibcq, struct provider_cq, ibcq);
}

static struct provider_qp *to_qp(struct ib_qp *ibqp)
{
	return container_of(ibqp, struct provider_qp, ibqp);
}

static void free_entries(struct list_head *entries, struct ib_qp *ibqp)
{
	struct entry *entry, *next;

	list_for_each_entry_safe(entry, next, entries, list) {
		if (ibqp && entry->wc.qp != ibqp)
			continue;
		list_del(&entry->list);
		kmem_cache_free(entry_cache, entry);
	}
}

/* Completions come from a work item: whoever posts may hold locks that their handler takes. */
static void notify(struct work_struct *work)
{
	struct provider_cq *cq = container_of(work, struct provider_cq, notify);

	local_bh_disable();
	if (cq->ibcq.comp_handler)
		cq->ibcq.comp_handler(&cq->ibcq, cq->ibcq.cq_context);
	local_bh_enable();
}

static void complete_entry(struct ib_cq *ibcq, struct entry *entry)
{
	struct provider_cq *cq = to_cq(ibcq);

	spin_lock(&cq->lock);
	list_add_tail(&entry->list, &cq->entries);
	if (cq->armed) {
		cq->armed = false;
		queue_work(notifying, &cq->notify);
	}
	spin_unlock(&cq->lock);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
static int create_cq(struct ib_cq *ibcq, const struct ib_cq_init_attr *attr,
		     struct uverbs_attr_bundle *attrs)
#else
static int create_cq(struct ib_cq *ibcq, const struct ib_cq_init_attr *attr,
		     struct ib_udata *udata)
#endif
{
	struct provider_cq *cq = to_cq(ibcq);

	spin_lock_init(&cq->lock);
	INIT_LIST_HEAD(&cq->entries);
	INIT_WORK(&cq->notify, notify);
	ibcq->cqe = attr->cqe;
	return 0;
}

static int destroy_cq(struct ib_cq *ibcq, struct ib_udata *udata)
{
	struct provider_cq *cq = to_cq(ibcq);

	cancel_work_sync(&cq->notify);
	free_entries(&cq->entries, NULL);
	return 0;
}

static int poll_cq(struct ib_cq *ibcq, int most, struct ib_wc *wc)
{
	struct provider_cq *cq = to_cq(ibcq);
	struct entry *entry;
	unsigned long flags;
	int count;

	spin_lock_irqsave(&cq->lock, flags);
	for (count = 0; count < most; count++) {
		entry = list_first_entry_or_null(&cq->entries, struct entry, list);
		if (!entry)
			break;
		list_del(&entry->list);
		wc[count] = entry->wc;
		kmem_cache_free(entry_cache, entry);
	}
	spin_unlock_irqrestore(&cq->lock, flags);
	return count;
}

static int req_notify_cq(struct ib_cq *ibcq, enum ib_cq_notify_flags notify_flags)
{
	struct provider_cq *cq = to_cq(ibcq);
	unsigned long flags;
	int missed;

	spin_lock_irqsave(&cq->lock, flags);
	cq->armed = true;
	missed = (notify_flags & IB_CQ_REPORT_MISSED_EVENTS) && !list_empty(&cq->entries);
	spin_unlock_irqrestore(&cq->lock, flags);
	return missed;
}

static int create_qp(struct ib_qp *ibqp, struct ib_qp_init_attr *attr, struct ib_udata *udata)
{
	struct provider_qp *qp = to_qp(ibqp);

	spin_lock_init(&qp->lock);
	INIT_LIST_HEAD(&qp->receives);
	qp->state = IB_QPS_RESET;
	qp->init_attr = *attr;
	if (attr->qp_type == IB_QPT_SMI)
		ibqp->qp_num = 0;
	else if (attr->qp_type == IB_QPT_GSI)
		ibqp->qp_num = 1;
	else
		ibqp->qp_num = atomic_inc_return(&last_qp_num) & 0xffffff;
	return 0;
}

static void flush_receives(struct provider_qp *qp)
{
	struct entry *entry, *next;

	list_for_each_entry_safe(entry, next, &qp->receives, list) {
		list_del(&entry->list);
		complete_entry(qp->ibqp.recv_cq, entry);
	}
}

static int modify_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		     struct ib_udata *udata)
{
	struct provider_qp *qp = to_qp(ibqp);
	unsigned long flags;

	if (!(mask & IB_QP_STATE))
		return 0;
	spin_lock_irqsave(&qp->lock, flags);
	qp->state = attr->qp_state;
	if (qp->state == IB_QPS_ERR)
		flush_receives(qp);
	else if (qp->state == IB_QPS_RESET)
		free_entries(&qp->receives, NULL);
	spin_unlock_irqrestore(&qp->lock, flags);
	return 0;
}

static int query_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		    struct ib_qp_init_attr *init_attr)
{
	struct provider_qp *qp = to_qp(ibqp);

	attr->qp_state = qp->state;
	attr->cur_qp_state = qp->state;
	attr->cap = qp->init_attr.cap;
	*init_attr = qp->init_attr;
	return 0;
}

static void forget_entries(struct ib_cq *ibcq, struct ib_qp *ibqp)
{
	unsigned long flags;

	if (!ibcq)
		return;
	spin_lock_irqsave(&to_cq(ibcq)->lock, flags);
	free_entries(&to_cq(ibcq)->entries, ibqp);
	spin_unlock_irqrestore(&to_cq(ibcq)->lock, flags);
}

static int destroy_qp(struct ib_qp *ibqp, struct ib_udata *udata)
{
	free_entries(&to_qp(ibqp)->receives, NULL);
	forget_entries(ibqp->send_cq, ibqp);
	forget_entries(ibqp->recv_cq, ibqp);
	return 0;
}

static struct entry *new_entry(struct ib_qp *ibqp, u64 wr_id, enum ib_wc_opcode opcode,
			       enum ib_wc_status status)
{
	struct entry *entry = kmem_cache_zalloc(entry_cache, GFP_ATOMIC);

	if (!entry)
		return NULL;
	entry->wc.wr_id = wr_id;
	entry->wc.opcode = opcode;
	entry->wc.status = status;
	entry->wc.qp = ibqp;
	return entry;
}

static enum ib_wc_opcode completed_as(enum ib_wr_opcode opcode)
{
	switch (opcode) {
	case IB_WR_RDMA_WRITE:
	case IB_WR_RDMA_WRITE_WITH_IMM:
		return IB_WC_RDMA_WRITE;
	case IB_WR_RDMA_READ:
		return IB_WC_RDMA_READ;
	case IB_WR_LOCAL_INV:
		return IB_WC_LOCAL_INV;
	case IB_WR_REG_MR:
		return IB_WC_REG_MR;
	default:
		return IB_WC_SEND;
	}
}

static int post_send(struct ib_qp *ibqp, const struct ib_send_wr *wr,
		     const struct ib_send_wr **bad_wr)
{
	struct provider_qp *qp = to_qp(ibqp);
	struct entry *entry;
	unsigned long flags;
	int error = 0;

	spin_lock_irqsave(&qp->lock, flags);
	for (; wr; wr = wr->next) {
		bool failed = qp->state == IB_QPS_ERR;

		if (!failed && qp->init_attr.sq_sig_type != IB_SIGNAL_ALL_WR &&
		    !(wr->send_flags & IB_SEND_SIGNALED))
			continue;
		entry = new_entry(ibqp, wr->wr_id, completed_as(wr->opcode),
				  failed ? IB_WC_WR_FLUSH_ERR : IB_WC_SUCCESS);
		if (!entry) {
			*bad_wr = wr;
			error = -ENOMEM;
			break;
		}
		complete_entry(ibqp->send_cq, entry);
	}
	spin_unlock_irqrestore(&qp->lock, flags);
	return error;
}

static int post_recv(struct ib_qp *ibqp, const struct ib_recv_wr *wr,
		     const struct ib_recv_wr **bad_wr)
{
	struct provider_qp *qp = to_qp(ibqp);
	struct entry *entry;
	unsigned long flags;
	int error = 0;

	spin_lock_irqsave(&qp->lock, flags);
	for (; wr; wr = wr->next) {
		entry = new_entry(ibqp, wr->wr_id, IB_WC_RECV, IB_WC_WR_FLUSH_ERR);
		if (!entry) {
			*bad_wr = wr;
			error = -ENOMEM;
			break;
		}
		if (qp->state == IB_QPS_ERR)
			complete_entry(ibqp->recv_cq, entry);
		else
			list_add_tail(&entry->list, &qp->receives);
	}
	spin_unlock_irqrestore(&qp->lock, flags);
	return error;
}

static int alloc_pd(struct ib_pd *pd, struct ib_udata *udata)
{
	return 0;
}

static int dealloc_pd(struct ib_pd *pd, struct ib_udata *udata)
{
	return 0;
}

static int alloc_ucontext(struct ib_ucontext *context, struct ib_udata *udata)
{
	return 0;
}

static void dealloc_ucontext(struct ib_ucontext *context)
{
}

/* That it is there is what lets a device move to another network namespace. */
static void disassociate_ucontext(struct ib_ucontext *context)
{
}

static int mmap_nothing(struct ib_ucontext *context, struct vm_area_struct *vma)
{
	return -EINVAL;
}

static int create_ah(struct ib_ah *ah, struct rdma_ah_init_attr *attr, struct ib_udata *udata)
{
	return 0;
}

static int destroy_ah(struct ib_ah *ah, u32 flags)
{
	return 0;
}

static struct ib_mr *get_dma_mr(struct ib_pd *pd, int access)
{
	struct ib_mr *mr = kzalloc(sizeof(*mr), GFP_KERNEL);

	return mr ?: ERR_PTR(-ENOMEM);
}

static struct ib_mr *reg_user_mr(struct ib_pd *pd, u64 start, u64 length, u64 virt_addr,
				 int access, struct ib_udata *udata)
{
	return get_dma_mr(pd, access);
}

static int dereg_mr(struct ib_mr *mr, struct ib_udata *udata)
{
	kfree(mr);
	return 0;
}

static int change_mcast(struct ib_qp *qp, union ib_gid *gid, u16 lid)
{
	return 0;
}

struct provider_pd {
	struct ib_pd ibpd;
};

struct provider_ah {
	struct ib_ah ibah;
};

struct provider_ucontext {
	struct ib_ucontext ibucontext;
};

const struct ib_device_ops queue_ops = {
	.alloc_pd = alloc_pd,
	.dealloc_pd = dealloc_pd,
	.alloc_ucontext = alloc_ucontext,
	.dealloc_ucontext = dealloc_ucontext,
	.disassociate_ucontext = disassociate_ucontext,
	.mmap = mmap_nothing,
	.create_cq = create_cq,
	.destroy_cq = destroy_cq,
	.poll_cq = poll_cq,
	.req_notify_cq = req_notify_cq,
	.create_qp = create_qp,
	.modify_qp = modify_qp,
	.query_qp = query_qp,
	.destroy_qp = destroy_qp,
	.post_send = post_send,
	.post_recv = post_recv,
	.create_ah = create_ah,
	.destroy_ah = destroy_ah,
	.get_dma_mr = get_dma_mr,
	.reg_user_mr = reg_user_mr,
	.dereg_mr = dereg_mr,
	.attach_mcast = change_mcast,
	.detach_mcast = change_mcast,

	INIT_RDMA_OBJ_SIZE(ib_ah, provider_ah, ibah),
	INIT_RDMA_OBJ_SIZE(ib_cq, provider_cq, ibcq),
	INIT_RDMA_OBJ_SIZE(ib_pd, provider_pd, ibpd),
	INIT_RDMA_OBJ_SIZE(ib_qp, provider_qp, ibqp),
	INIT_RDMA_OBJ_SIZE(ib_ucontext, provider_ucontext, ibucontext),
};

int queues_init(void)
{
	entry_cache = KMEM_CACHE(entry, 0);
	if (!entry_cache)
		return -ENOMEM;
	notifying = alloc_workqueue("rdma_provider", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (notifying)
		return 0;
	kmem_cache_destroy(entry_cache);
	return -ENOMEM;
}

void queues_exit(void)
{
	destroy_workqueue(notifying);
	kmem_cache_destroy(entry_cache);
}

"""Stage 1: statistics of the early part."""
import sys, time, numpy as np, torch
sys.path.insert(0,'.')
torch.set_num_threads(1); torch.set_grad_enabled(False)
from artifacts.standins import ieagan_layers as L
from export.families.ieagan import IeaGan
SEED=int(sys.argv[1]) if len(sys.argv)>1 else 2026
shapes=L.list_fitted_shapes()
fitted={}
for k,s in shapes.items():
    fitted[k]=torch.zeros(s)
    if '.bn' in k: fitted[k][1]=1.0
    if k.endswith('conv2'):
        from artifacts.standins.white_noise import draw_balanced_signs
        signs=draw_balanced_signs(np.random.default_rng(SEED+s[0]+s[1]),s[0],s[1],allows_opposite=False)
        fitted[k]=torch.from_numpy(signs*L.UNITS).to(torch.int8)
fitted['roles']=torch.arange(32).to(torch.int8)
fitted['curve']=torch.stack([torch.arange(17.)*.1, -1.1+torch.arange(17.)*.2])
def build():
    st=L.build_ieagan(SEED,fitted)
    m=IeaGan().eval(); m.load_state_dict(st); m.fold(); return m
def relu(x): return torch.relu(x)
NIMG=[4000,1500,500,150]
def block_parts(m,b,x,cond,upto):
    B=m.blocks[b][0]
    h=relu(B.bn1(x,cond)); h=B.conv1(h); h=relu(B.bn2(h,cond)); h=torch.nn.functional.interpolate(h,scale_factor=2.0)
    h2=B.conv2(h)
    if upto=='conv2': return h2
    h=relu(B.bn3(h2,cond)); h3=B.conv3(h)
    if upto=='conv3': return h3
    h=relu(B.bn4(h3,cond)); o=B.conv4(h)
    skip=torch.nn.functional.interpolate(x[:,:B.n_out],scale_factor=2.0)
    return o+skip
def inputs(m,lat,sen,number):
    cond=torch.cat([m.table[sen],lat],1)
    x=m.linear(cond).view(-1,512,4,12)
    for k in range(number): x=block_parts(m,2*k+1,x,cond,'out')
    return x,cond
t0=time.time()
for number in range(4):
    block,hidden=L._find_block(number); g=L._count_gated(hidden); c=L._count_clipped(hidden)
    b=2*number+1
    gen=torch.Generator().manual_seed(100+number)
    lat=torch.randn(NIMG[number],128,generator=gen); lat*=1.0
    lat[:,0]=0
    sen=torch.arange(NIMG[number])%40
    for stage in ('white','white','conv2','conv3','out'):
        m=build()
        S=[];S2=[];N=[];cov=0.;cn=0
        for i in range(0,len(lat),20):
            x,cond=inputs(m,lat[i:i+20],sen[i:i+20],number)
            y=block_parts(m,b,x,cond,'conv2' if stage=='white' else stage).double()
            if stage in ('conv2','white'):
                y=y[:,:4*g]
                # open where the gate is not closed: the group's mean over channels tells
                Y=y.view(len(y),4,g,*y.shape[2:])
                op=(Y.mean(2,keepdim=True)>-14).expand_as(Y)
                assert abs(op.double().mean().item()-.25)<1e-9
                if stage=='white':
                    V=(Y*op).permute(1,2,0,3,4).reshape(4,g,-1).float()
                    cov=cov+(V@V.transpose(1,2)).double(); cn+=V.shape[-1]/4
                    continue
                op=op.reshape(y.shape)
                y=y*op; n=op.double().sum((0,2,3))
            elif stage=='conv3':
                y=y[:,0:2*c:2]; n=torch.full((c,),float(y.shape[0]*y.shape[2]*y.shape[3]))
            else:
                ch=L.FEATURES[number+1][:,0]; y=y[:,ch]; n=torch.full((len(ch),),float(y.shape[0]*y.shape[2]*y.shape[3]))
            S.append(y.sum((0,2,3)));S2.append((y**2).sum((0,2,3)));N.append(n)
        if stage=='white':
            C=(cov/cn).numpy(); n=len(L.FEATURES[number]); target=.25*n
            W=fitted[f'{block}.conv2'].double().numpy().reshape(4,g,n)
            new=[]
            for p in range(4):
                w,v=np.linalg.eigh(C[p]); off=C[p]/target-np.eye(g)
                print('  cov dev rms',np.sqrt((off**2).mean()),'eig',w.min()/target,w.max()/target)
                new.append((v*np.sqrt(target/w))@v.T@W[p])
            new=np.rint(np.concatenate(new)); print('  max',np.abs(new).max())
            fitted[f'{block}.conv2']=torch.from_numpy(np.clip(new,-64,64)).to(torch.int8); continue
        s,s2,n=(torch.stack(v).sum(0) for v in (S,S2,N))
        mean=s/n; sd=(s2/n-mean**2).sqrt()
        key={'conv2':f'{block}.bn3','conv3':f'{block}.bn4','out':f'blocks.{b+2}.0.bn1'}[stage]
        fitted[key]=torch.stack([mean,sd]).float()
        print(key,'mean',mean.mean().item(),mean.std().item(),'sd',sd.min().item(),sd.mean().item(),sd.max().item(),f'{time.time()-t0:.0f}s',flush=True)
torch.save((SEED,fitted),'build/fit/stage1.pt')

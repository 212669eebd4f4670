import sys; sys.argv=['x']
exec(open('build/fit/fit1.py').read().split("t0=time.time()")[0])
SEED,fitted=torch.load('build/fit/stage3.pt')
D=np.load('build/fit/F2.npy'); mean,sd=fitted['blocks.9.0.bn1'].numpy()
F=(D-mean[None,:,None,None])/sd[None,:,None,None]
T=fitted['thresholds'].numpy()[None,:,None,None]+.075
E=F>T-.1
for ax in (2,3):
    for per in (4,8,16):
        e=np.moveaxis(E,ax,-1); e=e.reshape(-1,e.shape[-1]//per,per).mean((0,1)); print(ax,per,np.round(e/e.mean(),3), 'err',1/np.sqrt(E.sum()/per))
# per detector variance & rate by phase mod 8 x mod 8
A=F.reshape(len(F),32,8,8,24,8)
v=A.var((0,2,4)); print('per-detector phase var sd (8x8)',(v/v.mean((1,2),keepdims=True)).std(), 'avg over det',(v.mean(0)/v.mean()).std())
k=((A**4).mean((0,2,4))/v**2); print('kurt mean',k.mean(),'sd',k.std(),'avg over det sd',k.mean(0).std()); print(np.round(k.mean(0),2))
vu=A.var((0,2,4,5)); print('by u8: var spread per det',(vu/vu.mean(1,keepdims=True)).std())
ku=(A**4).mean((0,2,4,5))/vu**2; print(np.round(ku.mean(0),3))
v4=F.reshape(len(F),32,16,4,48,4).var((0,2,4)); print('4x4 per det',(v4/v4.mean((1,2),keepdims=True)).std())
